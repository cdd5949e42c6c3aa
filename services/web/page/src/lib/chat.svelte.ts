// The state of the chat: what is listed, what is open, and what is being answered.

import { SvelteMap } from "svelte/reactivity";

import { api, ApiError, type Conversation, type Model, type Parameters, type Session, type Turn } from "./api";
import type { Ids } from "./drafts";
import { newId } from "./ids";
import { follow, type Place } from "./stream";
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
const FIRST_PAUSE_MS = 250;
const LONGEST_PAUSE_MS = 2000;
const isOpen = (turn: Turn) => turn.state === "pending" || turn.state === "running";

export class Chat {
  session = $state<Session>();
  needsSignIn = $state(false);
  models = $state<Model[]>([]);
  list = $state<Conversation[]>([]);
  more = $state("");
  query = $state("");
  /** Of the conversation that is open or being opened; "": a new one. */
  openId = $state("");
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
  answering = $derived(this.path.find(isOpen));

  private reading = new Map<string, AbortController>();
  /** Changes whenever something else is opened: what comes of calls from before is too late. */
  private opening = 0;

  /** Resolves once the models are known, or cannot be. */
  started: Promise<unknown> = Promise.resolve();

  async start(): Promise<void> {
    this.started = this.guarded(async () => {
      this.session = await api.session();
      this.needsSignIn = false;
      const [models] = await Promise.all([api.models(), this.refresh()]);
      this.models = models.filter((each) => each.chat);
      if (!this.models.some((each) => each.name === this.model)) {
        this.model = (this.models.find((each) => each.ready) ?? this.models[0])?.name ?? "";
      }
    });
    await this.started;
  }

  /** Runs a call, and returns whether it succeeded; what it fails with is shown. */
  async guarded(work: () => Promise<void>): Promise<boolean> {
    try {
      await work();
      this.problem = "";
      return true;
    } catch (error) {
      this.showProblem(error);
      return false;
    }
  }

  private showProblem(error: unknown): void {
    if (error instanceof ApiError && error.status === 401) {
      this.needsSignIn = true;
      this.readNoMore();
    } else this.problem = error instanceof Error ? error.message : String(error);
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
    this.openId = id;
    const mine = this.opening;
    await this.guarded(async () => {
      const found = await api.get(id).catch((error) => {
        if (mine !== this.opening) return undefined;
        if (error instanceof ApiError && error.status === 404) location.hash = "";
        throw error;
      });
      if (!found || mine !== this.opening) return;
      const { turns, ...conversation } = found;
      this.current = conversation;
      for (const turn of turns) this.turns.set(turn.turn_id, turn);
      this.system = conversation.system;
      this.parameters = conversation.parameters;
      if (this.models.some((each) => each.name === conversation.model)) this.model = conversation.model;
      this.readShown();
    });
  }

  close(): void {
    this.opening += 1;
    this.readNoMore();
    this.turns.clear();
    this.openId = "";
    this.current = undefined;
    this.system = "";
    this.parameters = {};
  }

  chooseModel(name: string): void {
    this.model = name;
    localStorage.setItem(LAST_MODEL, name);
  }

  /**
   * Asks a question after a turn; an edited one has the same parent as that which it replaces.
   *
   * Returns whether it is stored. If not, it can be asked once more with the same ids.
   */
  async ask(content: string, ids: Ids, parent = this.current?.leaf ?? ""): Promise<boolean> {
    return this.guarded(async () => {
      const id = this.current?.conversation_id ?? (await this.made(content, ids.conversation_id));
      const { question_id, answer_id } = ids;
      await this.send(id, { question_id, answer_id, content, ...(parent ? { parent } : {}) });
    });
  }

  /** Has a question answered once more. */
  async again(answer: Turn): Promise<void> {
    await this.guarded(async () => {
      if (!this.current) return;
      await this.send(this.current.conversation_id, { answer_id: newId(), parent: answer.parent });
    });
  }

  async stop(turn: Turn): Promise<void> {
    await this.guarded(async () => {
      const stopped = await api.stop(turn.turn_id);
      if (this.turns.has(turn.turn_id)) this.turns.set(turn.turn_id, stopped);
    });
  }

  async show(leaf: string): Promise<void> {
    if (!this.current) return;
    this.current.leaf = leaf;
    this.readShown();
    await this.change({ leaf });
  }

  /** Changes fields of the open conversation. */
  async change(fields: Partial<Conversation>, id = this.current?.conversation_id): Promise<void> {
    if (!id) return;
    await this.guarded(async () => {
      await api.change(id, fields);
      // Why not the reply: its other fields, and its leaf, may be older than those here.
      const { leaf: _, ...others } = fields;
      if (this.current?.conversation_id === id) Object.assign(this.current, others);
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

  private async made(content: string, id: string): Promise<string> {
    const mine = this.opening;
    const made = await api.create({ conversation_id: id, model: this.model, system: this.system });
    const title = content.trim().replace(/\s+/g, " ").slice(0, 60);
    const parameters = $state.snapshot(this.parameters);
    void api.change(id, { title, parameters }).catch(() => undefined);
    if (mine === this.opening) {
      this.current = { ...made, title };
      this.openId = id;
      history.replaceState(null, "", `#/c/${id}`);
    }
    return id;
  }

  private async send(
    id: string,
    asked: { question_id?: string; answer_id: string; content?: string; parent?: string },
  ): Promise<void> {
    const parameters = $state.snapshot(this.parameters);
    const { turns } = await api.ask(id, { ...asked, model: this.model, parameters });
    void this.refresh().catch(() => undefined);
    if (this.current?.conversation_id !== id) return;
    for (const turn of turns) this.turns.set(turn.turn_id, turn);
    this.current.leaf = turns.at(-1)!.turn_id;
    this.readShown();
  }

  /** Reads the open answers of the branch that is shown, and no others. */
  private readShown(): void {
    const open = new Map(this.path.filter(isOpen).map((turn) => [turn.turn_id, turn.request_id]));
    for (const turnId of [...this.reading.keys()]) if (!open.has(turnId)) this.readNoMore(turnId);
    for (const [turnId, requestId] of open) {
      if (!requestId || this.reading.has(turnId)) continue;
      const control = new AbortController();
      this.reading.set(turnId, control);
      void this.readToEnd(turnId, requestId, control.signal);
    }
  }

  private readNoMore(...turnIds: string[]): void {
    for (const turnId of turnIds.length > 0 ? turnIds : [...this.reading.keys()]) {
      this.reading.get(turnId)?.abort();
      this.reading.delete(turnId);
      this.live.delete(turnId);
    }
  }

  /** Reads an open answer to its end, and then what is stored of it. */
  private async readToEnd(turnId: string, requestId: string, signal: AbortSignal): Promise<void> {
    const live: Live = { text: "", reasoning: "", tokens: 0, beganMs: 0, note: "asking", ahead: 0 };
    const place: Place = { position: "", ended: false };
    for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(LONGEST_PAUSE_MS, 2 * pauseMs)) {
      const { position } = place;
      if (!place.ended) await this.readOnce(turnId, requestId, { live, place }, signal);
      if (place.position !== position) pauseMs = FIRST_PAUSE_MS;
      const turn = await api.turn(turnId).catch((error: unknown) => error);
      if (signal.aborted) return;
      if (turn instanceof ApiError && turn.status >= 400 && turn.status < 500 && turn.status !== 429) {
        this.readNoMore(turnId);
        this.showProblem(turn);
        return;
      }
      if (!(turn instanceof Error) && !isOpen(turn as Turn)) {
        this.turns.set(turnId, turn as Turn);
        this.readNoMore(turnId);
        return;
      }
      await new Promise((go) => setTimeout(go, pauseMs));
      if (signal.aborted) return;
    }
  }

  private async readOnce(
    turnId: string,
    requestId: string,
    { live, place }: { live: Live; place: Place },
    signal: AbortSignal,
  ): Promise<void> {
    let frame = 0;
    const paint = () => {
      frame = 0;
      if (!signal.aborted) this.live.set(turnId, { ...live });
    };
    for await (const event of follow(requestId, place, signal)) {
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
    // No frame may come after the answer's end.
    cancelAnimationFrame(frame);
    paint();
  }
}

export const chat = new Chat();
