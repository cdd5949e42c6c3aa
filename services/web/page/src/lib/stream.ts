// Reads the output of a request from a gateway, and comes back by position as often as it takes: over
// a reload, a lost connection and a killed gateway no token is lost, repeated or changed.

import { createParser } from "eventsource-parser";

export type StreamEvent =
  | { kind: "queued"; position: number; quota: boolean }
  | { kind: "delta"; text: string; reasoning: string; tokens: number }
  | { kind: "lost"; tries: number }
  | { kind: "end" };

interface Message {
  queued?: { position?: number; reason?: string };
  delta?: { text?: string; reasoning?: string; first_index?: number; token_ids?: number[] };
  finish?: unknown;
}

const LONGEST_PAUSE_MS = 5000;

/** Yields the events of a message, by headrace.v1.StreamGenerateResponse. */
export function eventsOf(data: string): StreamEvent[] {
  const message = JSON.parse(data) as Message;
  if (message.queued !== undefined) {
    const { position = 0, reason } = message.queued;
    return [{ kind: "queued", position, quota: reason === "QUEUED_REASON_QUOTA" }];
  }
  if (message.delta !== undefined) {
    const { text = "", reasoning = "", first_index = 0, token_ids = [] } = message.delta;
    return [{ kind: "delta", text, reasoning, tokens: first_index + token_ids.length }];
  }
  return message.finish === undefined ? [] : [{ kind: "end" }];
}

/**
 * Yields what a request has generated and generates, from its beginning to its end.
 *
 * A request that the mesh does not know is at its end too: it is not begun yet, or is forgotten; its
 * turn says which.
 */
export async function* follow(requestId: string, signal: AbortSignal): AsyncGenerator<StreamEvent> {
  let position = "";
  for (let tries = 0; !signal.aborted; ) {
    try {
      const query = position ? `?after=${encodeURIComponent(position)}` : "";
      const answer = await fetch(`/v2/requests/${requestId}:stream${query}`, { signal });
      if (answer.status === 404 || answer.status === 401) break;
      if (answer.ok && answer.body) {
        const inbox: StreamEvent[] = [];
        const parser = createParser({
          onEvent(event) {
            inbox.push(...eventsOf(event.data));
            if (event.id) position = event.id.slice(event.id.lastIndexOf(":") + 1);
          },
        });
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        for (;;) {
          const { value, done } = await reader.read();
          if (value !== undefined) {
            tries = 0;
            parser.feed(value);
          }
          for (const event of inbox.splice(0)) {
            yield event;
            if (event.kind === "end") return;
          }
          if (done) break;
        }
      }
    } catch {
      if (signal.aborted) return;
    }
    tries += 1;
    yield { kind: "lost", tries };
    await new Promise((go) => setTimeout(go, Math.min(LONGEST_PAUSE_MS, 200 * 2 ** tries)));
  }
  yield { kind: "end" };
}
