//! Documents that are connected by shared keys, and the one of them that stays.

use std::sync::{Mutex, PoisonError};

use super::groups::{groups, Keyed, Parts};
use crate::error::Result;
use crate::progress::Progress;

/// What is known of a document among others: the number of the first of its cluster, how many they are, and whether
/// another one stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// its number in the index
    pub cluster: u64,
    /// documents in it
    pub size: u64,
    /// not the one that stays
    pub is_duplicate: bool,
}

/// The clusters of documents, by their numbers.
pub struct Clusters {
    /// of each document, an earlier one of its cluster; itself, if it is the first
    parents: Vec<u32>,
    sizes: Vec<u32>,
    kept: Vec<u32>,
}

impl Clusters {
    /// Joins the owners of equal keys. `documents`: at most `u32::MAX`. `is_better`: whether the second of two documents stays
    /// rather than the first, which has the smaller number.
    pub fn new(
        documents: u64,
        keys: Parts,
        threads: usize,
        progress: &Progress,
        is_better: impl Fn(u32, u32) -> bool,
    ) -> Result<Self> {
        let parents: Mutex<Vec<u32>> = Mutex::new((0..documents as u32).collect());
        keys.sorted(threads, progress, |keys| {
            let pairs: Vec<(u32, u32)> = groups(keys).flat_map(pairs).collect();
            let mut parents = parents.lock().unwrap_or_else(PoisonError::into_inner);
            pairs.into_iter().for_each(|(one, other)| join(&mut parents, one, other));
            Ok(())
        })?;
        let mut parents = parents.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut sizes = vec![0; parents.len()];
        let mut kept: Vec<u32> = (0..documents as u32).collect();
        for document in 0..documents as u32 {
            let root = root(&mut parents, document);
            sizes[root as usize] += 1;
            let best = &mut kept[root as usize];
            if is_better(*best, document) {
                *best = document;
            }
        }
        Ok(Self { parents, sizes, kept })
    }

    /// What is known of a document; `None` if it is alone.
    pub fn member(&mut self, document: u64) -> Option<Member> {
        let root = root(&mut self.parents, document as u32) as usize;
        let size = u64::from(self.sizes[root]);
        let is_duplicate = u64::from(self.kept[root]) != document;
        (size > 1).then_some(Member { cluster: root as u64, size, is_duplicate })
    }
}

/// The first owner of a key with each of the others.
fn pairs(group: &[Keyed]) -> impl Iterator<Item = (u32, u32)> + '_ {
    group[1..].iter().map(|other| (group[0].1 as u32, other.1 as u32))
}

/// The first document of a cluster. Halves the way there.
fn root(parents: &mut [u32], mut document: u32) -> u32 {
    loop {
        let parent = parents[document as usize];
        if parent == document {
            return document;
        }
        let next = parents[parent as usize];
        parents[document as usize] = next;
        document = next;
    }
}

/// The smaller root becomes that of both, so the result does not depend on the order.
fn join(parents: &mut [u32], one: u32, other: u32) {
    let (one, other) = (root(parents, one), root(parents, other));
    parents[one.max(other) as usize] = one.min(other);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn clusters_are_the_connected_components(edges in prop::collection::vec((0..40_u32, 0..40_u32), 0..40)) {
            let folder = tempfile::tempdir().unwrap();
            let mut parts = Parts::new(&folder.path().join("parts"), 100).unwrap();
            for (key, (one, other)) in edges.iter().enumerate() {
                parts.add(((key as u128) << 64, u64::from(*one))).unwrap();
                parts.add(((key as u128) << 64, u64::from(*other))).unwrap();
            }
            let better = |one: u32, other: u32| other % 7 > one % 7;
            let mut clusters = Clusters::new(40, parts, 2, &Progress::default(), better).unwrap();
            // by definition: spread the least number until nothing changes
            let mut least: Vec<u32> = (0..40).collect();
            for _ in 0..40 {
                for (one, other) in &edges {
                    let both = least[*one as usize].min(least[*other as usize]);
                    least[*one as usize] = both;
                    least[*other as usize] = both;
                }
            }
            for document in 0..40_u32 {
                let all: Vec<u32> = (0..40).filter(|other| least[*other as usize] == least[document as usize]).collect();
                let stays = all.iter().copied().max_by_key(|one| (one % 7, std::cmp::Reverse(*one))).unwrap();
                let cluster = u64::from(least[document as usize]);
                let expected = Member { cluster, size: all.len() as u64, is_duplicate: stays != document };
                prop_assert_eq!(clusters.member(u64::from(document)), (all.len() > 1).then_some(expected));
            }
        }
    }
}
