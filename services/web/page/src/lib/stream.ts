// Reads the output of a request from a gateway, and comes back by position as often as it takes: over
// a reload, a lost connection and a killed gateway no token is lost, repeated or changed.

import { createParser } from "eventsource-parser";

export type StreamEvent =
  | { kind: "queued"; position: number; quota: boolean }
  | { kind: "delta"; text: string; reasoning: string; tokens: number }
  | { kind: "lost" }
  | { kind: "end" };

/** How far a request is read. */
export interface Place {
  position: string;
  /** Nothing more comes of its stream. */
  ended: boolean;
}

interface Message {
  queued?: { position?: number; reason?: string };
  delta?: { text?: string; reasoning?: string; first_index?: number; token_ids?: number[] };
  finish?: unknown;
}

const LONGEST_PAUSE_MS = 5000;
const TRIES = 5;

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
 * Yields what a request has generated and generates, from a place on, and moves the place.
 *
 * It returns at the end of the request, where a gateway refuses it, and after some vain tries: then its
 * turn says what has become of it. One that the mesh does not know may not be begun yet.
 */
export async function* follow(
  requestId: string,
  place: Place,
  signal: AbortSignal,
): AsyncGenerator<StreamEvent> {
  for (let tries = 0; tries < TRIES && !signal.aborted; ) {
    try {
      const query = place.position ? `?after=${encodeURIComponent(place.position)}` : "";
      const answer = await fetch(`/v2/requests/${requestId}:stream${query}`, { signal });
      if (answer.status >= 400 && answer.status < 500 && answer.status !== 429) {
        place.ended = answer.status !== 404 && answer.status !== 401;
        return;
      }
      if (answer.ok && answer.body) {
        const inbox: StreamEvent[] = [];
        const parser = createParser({
          onEvent(event) {
            inbox.push(...eventsOf(event.data));
            if (event.id) place.position = event.id.slice(event.id.lastIndexOf(":") + 1);
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
            if (event.kind === "end") place.ended = true;
            yield event;
            if (place.ended) return;
          }
          if (done) break;
        }
      }
    } catch {
      if (signal.aborted) return;
    }
    tries += 1;
    yield { kind: "lost" };
    await new Promise((go) => setTimeout(go, Math.min(LONGEST_PAUSE_MS, 200 * 2 ** tries)));
  }
}
