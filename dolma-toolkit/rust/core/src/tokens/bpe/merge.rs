//! Merges: of all neighbours, the pair that is first in the list is joined, the leftmost one first, until none is in the list.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Words of up to so many bytes are merged by looking through them; in longer ones a heap finds the next pair.
const SCANNED: usize = 64;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Slot {
    pair: u64,
    rank: u32,
    id: u32,
}

/// Pair of ids → rank and id, in an open table that is at most half full.
pub struct Merges {
    slots: Vec<Slot>,
    shift: u32,
}

/// Memory that words take turns with.
#[derive(Default)]
pub struct Scratch {
    parts: Vec<Part>,
    links: Vec<Link>,
    heap: BinaryHeap<Reverse<(u32, u32)>>,
}

/// A part of a word, and what it makes with the one behind it.
#[derive(Clone, Copy)]
struct Part {
    id: u32,
    rank: u32,
    merged: u32,
}

/// A part of a long word.
#[derive(Clone, Copy)]
struct Link {
    part: Part,
    before: u32,
    behind: u32,
}

impl Merges {
    /// Of (left, right, id of both), in the order of the list; of a pair that occurs twice the last counts.
    pub fn new(list: &[(u32, u32, u32)]) -> Merges {
        let bits = (list.len() * 2).next_power_of_two().trailing_zeros().max(4);
        let empty = Slot { pair: u64::MAX, rank: NONE, id: 0 };
        let mut merges = Merges { slots: vec![empty; 1 << bits], shift: 64 - bits };
        for (rank, (left, right, id)) in list.iter().enumerate() {
            let pair = pair_of(*left, *right);
            let slot = merges.slot_of(pair);
            merges.slots[slot] = Slot { pair, rank: rank as u32, id: *id };
        }
        merges
    }

    #[inline]
    fn slot_of(&self, pair: u64) -> usize {
        // Fibonacci hashing: Knuth, The Art of Computer Programming, volume 3, 6.4
        let mut slot = (pair.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize;
        while self.slots[slot].pair != pair && self.slots[slot].pair != u64::MAX {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        slot
    }

    #[inline]
    fn part(&self, id: u32, behind: Option<u32>) -> Part {
        match behind {
            None => Part { id, rank: NONE, merged: 0 },
            Some(behind) => {
                let slot = self.slots[self.slot_of(pair_of(id, behind))];
                Part { id, rank: slot.rank, merged: slot.id }
            }
        }
    }

    /// Appends what is left of the bytes of a word.
    pub fn merge(&self, bytes: impl Iterator<Item = u32>, scratch: &mut Scratch, ids: &mut Vec<u32>) {
        let Scratch { parts, links, heap } = scratch;
        parts.clear();
        parts.extend(bytes.map(|id| Part { id, rank: NONE, merged: 0 }));
        for index in 1..parts.len() {
            parts[index - 1] = self.part(parts[index - 1].id, Some(parts[index].id));
        }
        if parts.len() > SCANNED {
            self.merge_long(parts, links, heap, ids);
            return;
        }
        loop {
            let (mut best, mut rank) = (0, NONE);
            for (index, part) in parts.iter().enumerate() {
                if part.rank < rank {
                    (best, rank) = (index, part.rank);
                }
            }
            if rank == NONE {
                break;
            }
            let merged = parts[best].merged;
            parts.remove(best + 1);
            parts[best] = self.part(merged, parts.get(best + 1).map(|part| part.id));
            if best > 0 {
                parts[best - 1] = self.part(parts[best - 1].id, Some(merged));
            }
        }
        ids.extend(parts.iter().map(|part| part.id));
    }

    fn merge_long(
        &self,
        parts: &[Part],
        links: &mut Vec<Link>,
        heap: &mut BinaryHeap<Reverse<(u32, u32)>>,
        ids: &mut Vec<u32>,
    ) {
        let count = parts.len() as u32;
        links.clear();
        links.extend(parts.iter().zip(0..).map(|(part, index): (&Part, u32)| Link {
            part: *part,
            before: index.wrapping_sub(1),
            behind: if index + 1 == count { NONE } else { index + 1 },
        }));
        heap.clear();
        heap.extend(
            parts.iter().zip(0..).filter(|(part, _)| part.rank != NONE).map(|(part, at)| Reverse((part.rank, at))),
        );
        while let Some(Reverse((rank, at))) = heap.pop() {
            let link = links[at as usize];
            // it, or what was behind it, has been merged since; a part that is gone has no rank
            if link.part.rank != rank {
                continue;
            }
            let gone = link.behind;
            let behind = links[gone as usize].behind;
            links[gone as usize].part.rank = NONE;
            let behind_id = (behind != NONE).then(|| links[behind as usize].part.id);
            let part = self.part(link.part.merged, behind_id);
            links[at as usize] = Link { part, before: link.before, behind };
            if behind != NONE {
                links[behind as usize].before = at;
            }
            if part.rank != NONE {
                heap.push(Reverse((part.rank, at)));
            }
            if link.before != NONE {
                let before = &mut links[link.before as usize];
                before.part = self.part(before.part.id, Some(part.id));
                if before.part.rank != NONE {
                    heap.push(Reverse((before.part.rank, link.before)));
                }
            }
        }
        let mut at = 0;
        while at != NONE {
            ids.push(links[at as usize].part.id);
            at = links[at as usize].behind;
        }
    }
}

fn pair_of(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}
