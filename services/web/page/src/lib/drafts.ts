// Messages that are not sent yet, kept by the browser: by the conversation, "" for a new one.

import { newId } from "./ids";

/** Ids of a question: one that is sent once more with the same is asked once. */
export interface Ids {
  /** Of the conversation that is made for it, if it is a first one. */
  conversation_id: string;
  question_id: string;
  answer_id: string;
}

const PREFIX = "headrace.draft.";
const textKey = (place: string) => PREFIX + (place || "new");
const idsKey = (place: string) => `${textKey(place)}.ids`;

export const newIds = (): Ids => ({ conversation_id: newId(), question_id: newId(), answer_id: newId() });

export const drafts = {
  read: (place: string) => localStorage.getItem(textKey(place)) ?? "",

  keep(place: string, text: string): void {
    if (text) localStorage.setItem(textKey(place), text);
    else localStorage.removeItem(textKey(place));
  },

  /** Returns the ids to send a text with: those of before while it is the same. */
  idsOf(place: string, text: string): Ids {
    const kept = JSON.parse(localStorage.getItem(idsKey(place)) ?? "{}") as { text?: string; ids?: Ids };
    if (kept.ids && kept.text === text) return kept.ids;
    return drafts.keepIds(place, text, newIds());
  },

  keepIds(place: string, text: string, ids: Ids): Ids {
    localStorage.setItem(idsKey(place), JSON.stringify({ text, ids }));
    return ids;
  },

  forgetIds: (place: string) => localStorage.removeItem(idsKey(place)),

  /** Leaves nothing for the next person at this browser. */
  forgetAll(): void {
    for (const key of Object.keys(localStorage)) if (key.startsWith(PREFIX)) localStorage.removeItem(key);
  },
};
