// The state of the chat: what is listed, what is open, and what is being answered.

import { SvelteMap } from "svelte/reactivity";

import { api, ApiError, type Conversation, type Model, type Parameters, type Session, type Turn } from "./api";
import { newId } from "./ids";
import { follow } from "./stream";
import { pathTo } from "./tree";

/** An answer that is being read. */
export interface Live {
  text: string;
  reasoning: string;
  tokens: number;
  beganMs: number;
  note: "asking" | "waiting" | "quota" | "lost" | "";
  ahead: number;
}

const LAST_MODEL = "headrace.model";
const PAUSE_MS = 500;

export class Chat {
  session = $state<Session>();
  needsSignIn = $state(false);
  models = $state<Model[]>([]);
  list = $state<Conversation[]>([]);
  more = $state("");
  query = $state("");
  current = $state<Conversation>();
  turns = new SvelteMap<string, Turn>();
  live = new SvelteMap<string, Live>();
  deleted = $state<Conversation>();
  problem = $state("");
  model = $state(localStorage.getItem(LAST_MODEL) ?? "");
  /** Of a conversation that is not stored yet. */
  system = $state("");
  parameters = $state<Parameters>({});

  path = $derived(this.current ? pathTo(this.turns, this.current.leaf) : []);
  answering = $derived(this.path.find((turn) => turn.state === "pending" || turn.state === "running"));

  private reading = new Map<string, AbortController>();

  async start(): Promise<void> {
    await this.guarded(async () => {
      this.session = await api.session();
      this.needsSignIn = false;
      const [models] = await Promise.all([api.models(), this.refresh()]);
      this.models = models.filter((each) => each.chat);
      if (!this.models.some((each) => each.name === this.model)) {
        this.model = (this.models.find((each) => each.ready) ?? this.models[0])?.name ?? "";
      }
    });
  }

  /** Runs a call; what it fails with is shown. */
  async guarded(work: () => Promise<void>): Promise<void> {
    try {
      await work();
      this.problem = "";
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) this.needsSignIn = true;
      else this.problem = error instanceof Error ? error.message : String(error);
    }
  }

  async refresh(): Promise<void> {
    const query = this.query;
    const found = await api.list(query, "");
    if (query === this.query) [this.list, this.more] = [found.conversations, found.before];
  }

  async loadMore(): Promise<void> {
    await this.guarded(async () => {
      const found = await api.list(this.query, this.more);
      this.list.push(...found.conversations);
      this.more = found.before;
    });
  }

  async open(id: string): Promise<void> {
    this.close();
    if (!id) return;
    await this.guarded(async () => {
      const { turns, ...conversation } = await api.get(id);
      this.current = conversation;
      for (const turn of turns) this.turns.set(turn.turn_id, turn);
      this.system = conversation.system;
      this.parameters = conversation.parameters;
      if (this.models.some((each) => each.name === conversation.model)) this.model = conversation.model;
      for (const turn of turns) this.read(turn);
    });
    if (!this.current) location.hash = "";
  }

  close(): void {
    for (const reader of this.reading.values()) reader.abort();
    this.reading.clear();
    this.turns.clear();
    this.live.clear();
    this.current = undefined;
    this.system = "";
    this.parameters = {};
  }

  chooseModel(name: string): void {
    this.model = name;
    localStorage.setItem(LAST_MODEL, name);
  }

  /** Asks a question after a turn; an edited one has the same parent as that which it replaces. */
  async ask(content: string, parent = this.current?.leaf ?? ""): Promise<void> {
    await this.guarded(async () => {
      const conversation = await this.stored(content);
      await this.send(conversation, { question_id: newId(), content, ...(parent ? { parent } : {}) });
    });
  }

  /** Has a question answered once more. */
  async again(answer: Turn): Promise<void> {
    await this.guarded(async () => {
      if (this.current) await this.send(this.current, { parent: answer.parent });
    });
  }

  async stop(turn: Turn): Promise<void> {
    await this.guarded(async () => this.set(await api.stop(turn.turn_id)));
  }

  async show(leaf: string): Promise<void> {
    if (!this.current) return;
    this.current.leaf = leaf;
    await this.change({ leaf });
  }

  /** Changes fields of the open conversation. */
  async change(fields: Partial<Conversation>, id = this.current?.conversation_id): Promise<void> {
    if (!id) return;
    await this.guarded(async () => {
      const changed = await api.change(id, fields);
      if (this.current?.conversation_id === id) this.current = changed;
      await this.refresh();
    });
  }

  async remove(conversation: Conversation): Promise<void> {
    await this.guarded(async () => {
      await api.remove(conversation.conversation_id);
      this.deleted = conversation;
      if (this.current?.conversation_id === conversation.conversation_id) location.hash = "";
      await this.refresh();
    });
  }

  async restore(): Promise<void> {
    const id = this.deleted?.conversation_id;
    if (!id) return;
    await this.guarded(async () => {
      await api.restore(id);
      this.deleted = undefined;
      await this.refresh();
    });
  }

  private async stored(content: string): Promise<Conversation> {
    if (this.current) return this.current;
    const id = newId();
    const made = await api.create({ conversation_id: id, model: this.model, system: this.system });
    const title = content.trim().replace(/\s+/g, " ").slice(0, 60);
    this.current = { ...made, title };
    void api.change(id, { title, parameters: this.parameters }).catch(() => undefined);
    history.replaceState(null, "", `#/c/${id}`);
    return made;
  }

  private async send(
    conversation: Conversation,
    asked: { question_id?: string; content?: string; parent?: string },
  ): Promise<void> {
    const id = conversation.conversation_id;
    const { turns } = await api.ask(id, {
      ...asked,
      answer_id: newId(),
      model: this.model,
      parameters: $state.snapshot(this.parameters),
    });
    if (this.current?.conversation_id !== id) return;
    for (const turn of turns) this.set(turn);
    this.current.leaf = turns.at(-1)!.turn_id;
    this.read(turns.at(-1)!);
    void this.refresh().catch(() => undefined);
  }

  private set(turn: Turn): void {
    if (this.turns.has(turn.turn_id) || this.current) this.turns.set(turn.turn_id, turn);
  }

  /** Reads an open answer to its end, and then what is stored of it. */
  private read(turn: Turn): void {
    const isOpen = turn.state === "pending" || turn.state === "running";
    if (!isOpen || !turn.request_id || this.reading.has(turn.turn_id)) return;
    const control = new AbortController();
    this.reading.set(turn.turn_id, control);
    void this.readToEnd(turn.turn_id, turn.request_id, control.signal);
  }

  private async readToEnd(turnId: string, requestId: string, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.readOnce(turnId, requestId, signal);
      if (signal.aborted) return;
      const turn = await api.turn(turnId).catch(() => undefined);
      if (signal.aborted) return;
      if (turn && turn.state !== "pending" && turn.state !== "running") {
        this.turns.set(turnId, turn);
        this.live.delete(turnId);
        this.reading.delete(turnId);
        return;
      }
      await new Promise((go) => setTimeout(go, PAUSE_MS));
    }
  }

  private async readOnce(turnId: string, requestId: string, signal: AbortSignal): Promise<void> {
    const live: Live = { text: "", reasoning: "", tokens: 0, beganMs: 0, note: "asking", ahead: 0 };
    let frame = 0;
    const paint = () => {
      frame = 0;
      if (!signal.aborted) this.live.set(turnId, { ...live });
    };
    for await (const event of follow(requestId, signal)) {
      if (event.kind === "delta") {
        live.beganMs ||= performance.now();
        live.text += event.text;
        live.reasoning += event.reasoning;
        live.tokens = event.tokens;
        live.note = "";
      } else if (event.kind === "queued") {
        [live.note, live.ahead] = [event.quota ? "quota" : "waiting", event.position];
      } else if (event.kind === "lost") {
        live.note = "lost";
      }
      frame ||= requestAnimationFrame(paint);
    }
  }
}

export const chat = new Chat();
