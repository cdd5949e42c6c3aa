// A conversation is a tree of turns: an edit is a sibling of a question, another answer one of an answer.

import type { Turn } from "./api";

export type Turns = ReadonlyMap<string, Turn>;

/** Returns the turns from a first one to this one. */
export function pathTo(turns: Turns, leaf: string): Turn[] {
  const path: Turn[] = [];
  for (let turn = turns.get(leaf); turn && path.length <= turns.size; turn = turns.get(turn.parent)) {
    path.push(turn);
  }
  return path.reverse();
}

/** Returns the turns that follow the same one, in the order of their creation. */
export function siblings(turns: Turns, turn: Turn): Turn[] {
  return [...turns.values()].filter((each) => each.parent === turn.parent && each.role === turn.role);
}

/** Returns the end of the branch through a turn that follows its newest turns. */
export function newestLeaf(turns: Turns, turnId: string): string {
  const newest = new Map<string, string>();
  for (const turn of turns.values()) newest.set(turn.parent, turn.turn_id);
  let leaf = turnId;
  for (let child = newest.get(leaf); child !== undefined; child = newest.get(leaf)) leaf = child;
  return leaf;
}
