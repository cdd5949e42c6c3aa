"""llama.cpp's own HTTP server, by xllamacpp; run with the Python that has it.

llama_cpp_server.py GGUF PORT NAME SLOTS TOKENS_PER_SLOT THREADS
"""

import signal
import sys

import xllamacpp

if __name__ == "__main__":
    path, port, name, slots, slot_tokens, threads = sys.argv[1:]
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.model_alias = {name}
    params.hostnames = ["127.0.0.1"]
    params.port = int(port)
    params.n_parallel = int(slots)
    params.n_ctx = int(slots) * int(slot_tokens)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(threads)
    params.n_threads_http = 2
    server = xllamacpp.Server(params)
    signal.pause()
