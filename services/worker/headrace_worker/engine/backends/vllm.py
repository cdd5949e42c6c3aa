"""Models computed by vLLM, in its own processes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import count
from typing import Any

from headrace.sampling import names_in
from headrace_worker.base.settings import WorkerSettings
from headrace_worker.engine.backends.loop_thread import LoopThread
from headrace_worker.engine.backends.remote_engine import (
    BackendError,
    RemoteEngine,
    TokenChunk,
    finish_of,
    seed_of,
    tokens_left,
)
from headrace_worker.engine.base.interface import Capabilities, EngineFacts, Sequence
from headrace_worker.engine.base.loaded_model import LoadedModel, ModelLoadFailed, PackageMissing
from headrace_worker.engine.files.sources import model_folder, weights_digest
from headrace_worker.engine.files.tokenizer_files import first_line, tokenizer_files

_SLOTS = 64


class VllmBackend:
    """vLLM's asynchronous engine, with token ids in and out."""

    def __init__(self, engine: Any, eos_token_ids: tuple[int, ...]) -> None:
        self._engine, self._eos_token_ids = engine, eos_token_ids
        self._numbers = count()

    @property
    def unavailable_reason(self) -> str:
        return ""

    async def close(self) -> None:
        self._engine.shutdown()

    async def generate(self, sequence: Sequence) -> AsyncGenerator[TokenChunk, None]:
        from vllm import TokensPrompt
        from vllm.v1.engine.exceptions import EngineDeadError

        prompt = TokensPrompt(prompt_token_ids=[*sequence.prompt_ids, *sequence.output_ids])
        if sequence.cache_salt:
            prompt["cache_salt"] = sequence.cache_salt
        request_id = str(next(self._numbers))
        try:
            outputs = self._engine.generate(prompt, self._parameters(sequence), request_id)
            # Closing it early aborts the request there.
            async with aclosing(outputs):
                async for output in outputs:
                    choice = output.outputs[0]
                    yield TokenChunk(
                        tuple(choice.token_ids), finish_of("vLLM", choice.finish_reason)
                    )
        except (EngineDeadError, BackendError):
            raise
        except Exception as error:  # what it refuses, by a class of its own in each version
            raise BackendError(f"vLLM refuses it: {first_line(error)}") from error

    def _parameters(self, sequence: Sequence) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        parameters = sequence.parameters
        ends = () if parameters.ignore_eos else self._eos_token_ids
        return SamplingParams(
            max_tokens=tokens_left(sequence),
            **{own: getattr(parameters, name) for name, own in names_in("vllm").items()},
            logit_bias=dict(parameters.logit_bias) or None,
            # Else it applies the values of the model's files.
            ignore_eos=parameters.ignore_eos,
            stop_token_ids=sorted(parameters.stop_token_ids.union(ends)),
            seed=seed_of(sequence, bits=63),
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )


def load_vllm(settings: WorkerSettings) -> LoadedModel:
    """Load a transformers model into vLLM; blocks until it is loaded.

    Raises:
        ModelLoadFailed: with the reason.
    """
    try:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM
    except ImportError as error:
        raise PackageMissing(settings.model_source, engine="vllm", package="vllm") from error
    folder = model_folder(settings.model_source, settings.model_revision)
    # Why here: transformers takes seconds to import, and a missing vLLM is reported before.
    from headrace_worker.engine.files.generation_config import (
        configured_end_tokens_in,
        generation_defaults,
        read_generation_config,
    )

    files = tokenizer_files(settings.model_source, folder, configured_end_tokens_in(folder))
    slots = settings.max_slots or _SLOTS

    async def start() -> Any:
        arguments = AsyncEngineArgs(
            model=str(folder),
            dtype=settings.dtype,
            max_num_seqs=slots,
            max_model_len=settings.context_tokens,
            enable_prefix_caching=settings.prefix_cache,
            # Its input and output are ids; the gateway has the tokenizer.
            skip_tokenizer_init=True,
        )
        return AsyncLLM.from_engine_args(arguments)

    loop = LoopThread("vllm")
    try:
        engine = loop.run(start())
    except Exception as error:  # of its own processes, of all kinds
        fact = f"vLLM reports: {first_line(error)}"
        raise ModelLoadFailed(settings.model_source, fact) from error
    config = engine.model_config
    facts = EngineFacts(
        name="vllm",
        dtype=str(config.dtype).removeprefix("torch."),
        max_slots=slots,
        context_tokens=int(config.max_model_len),
        vocabulary_size=int(config.get_vocab_size()),
        eos_token_ids=files.eos_token_ids,
        weights_digest=weights_digest(folder, settings.dtype),
        # Its kernels and its generators are its own.
        batch_invariant=False,
        capabilities=Capabilities(cache_salt=True, sampling=names_in("vllm").keys()),
    )
    source = VllmBackend(engine, files.eos_token_ids)
    defaults = generation_defaults(read_generation_config(folder))
    return LoadedModel(RemoteEngine(facts, source, loop), files, defaults, 0)
