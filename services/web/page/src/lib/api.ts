// Calls of /ui/api, and of the mesh's own API for models and sign-in.

export type Parameters = Record<string, number>;

export interface Session {
  tenant: string;
  person: string;
  role: string;
  is_operator: boolean;
  anonymous: boolean;
}

export interface Conversation {
  conversation_id: string;
  title: string;
  system: string;
  model: string;
  parameters: Parameters;
  leaf: string;
  pinned: boolean;
  tags: string[];
  scene: string;
  create_ms: number;
  update_ms: number;
}

export type TurnState = "pending" | "running" | "complete" | "failed" | "cancelled";

export interface Turn {
  turn_id: string;
  parent: string;
  role: "user" | "assistant";
  content: string;
  state: TurnState;
  create_ms: number;
  request_id?: string;
  model?: string;
  parameters?: Parameters;
  /** A uint64 as text: numbers here end at 2**53. */
  seed?: string;
  reasoning?: string;
  tool_calls?: ToolCall[];
  finish_reason?: string;
  usage?: { prompt_tokens?: number; output_tokens?: number; cached_prompt_tokens?: number };
  error?: { reason?: string; message?: string };
  end_ms?: number | null;
}

export interface ToolCall {
  call_id?: string;
  name: string;
  arguments: string;
}

export interface Model {
  name: string;
  chat: boolean;
  ready: boolean;
  context_tokens: number;
}

export interface Question {
  question_id?: string;
  content?: string;
  parent?: string;
  answer_id: string;
  model: string;
  parameters: Parameters;
}

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

const TRIES = 5;
const TIMEOUT_MS = 15_000;

interface Answer {
  status: number;
  text: string;
}

/** Sends a call that may be sent again, until it is answered. */
async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
  for (let tried = 1; ; tried += 1) {
    const answer = await attempt(method, path, body);
    if (answer !== undefined && (answer.status < 500 || tried >= TRIES)) return read<T>(answer);
    if (tried >= TRIES) throw new ApiError(0, "unreachable", "the server cannot be reached");
    await new Promise((go) => setTimeout(go, Math.min(4000, 250 * 2 ** tried)));
  }
}

async function attempt(method: string, path: string, body: unknown): Promise<Answer | undefined> {
  try {
    const answer = await fetch(path, {
      method,
      signal: AbortSignal.timeout(TIMEOUT_MS),
      ...(body === undefined
        ? {}
        : { headers: { "content-type": "application/json" }, body: JSON.stringify(body) }),
    });
    return { status: answer.status, text: await answer.text() };
  } catch {
    return undefined; // no connection, or no answer in time
  }
}

function read<T>({ status, text }: Answer): T {
  if (status < 300) return JSON.parse(text || "{}") as T;
  let code = String(status);
  let message = text;
  try {
    const error = JSON.parse(text) as { error?: { code?: string; message?: string }; message?: string };
    code = error.error?.code ?? code;
    message = error.error?.message ?? error.message ?? text;
  } catch {
    // not JSON: a proxy's own answer
  }
  throw new ApiError(status, code.toUpperCase(), message);
}

const conversation = (id: string) => `/ui/api/conversations/${id}`;

export const api = {
  session: () => call<Session>("GET", "/ui/api/session"),
  signIn: (key: string) => call<unknown>("POST", "/v2/admin/sessions", { key }),
  signOut: () => call<unknown>("DELETE", "/v2/admin/sessions/me"),
  models: async () => (await call<{ models?: Model[] }>("GET", "/v2/models")).models ?? [],
  list: (q: string, before: string) =>
    call<{ conversations: Conversation[]; before: string }>(
      "GET",
      `/ui/api/conversations?${new URLSearchParams({ q, before })}`,
    ),
  create: (fields: { conversation_id: string; model: string; system?: string; scene?: string }) =>
    call<Conversation>("POST", "/ui/api/conversations", fields),
  get: (id: string) => call<Conversation & { turns: Turn[] }>("GET", conversation(id)),
  change: (id: string, fields: Partial<Conversation>) =>
    call<Conversation>("PATCH", conversation(id), fields),
  remove: (id: string) => call<unknown>("DELETE", conversation(id)),
  restore: (id: string) => call<Conversation>("POST", `${conversation(id)}/restore`),
  ask: (id: string, question: Question) =>
    call<{ turns: Turn[] }>("POST", `${conversation(id)}/turns`, question),
  turn: (id: string) => call<Turn>("GET", `/ui/api/turns/${id}`),
  stop: (id: string) => call<Turn>("POST", `/ui/api/turns/${id}/stop`),
};
