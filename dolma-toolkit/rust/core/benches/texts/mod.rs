//! What the benches share: a text cut into documents, and how fast something goes through them.

use std::time::Instant;

const DOCUMENT_BYTES: usize = 4_000;

/// The text of a file, cut at blank lines into documents of about 4 kB.
pub fn documents(path: &str) -> Vec<String> {
    let content = std::fs::read_to_string(path).unwrap();
    let mut documents = vec![String::new()];
    for part in content.split_inclusive("\n\n") {
        if documents.last().unwrap().len() > DOCUMENT_BYTES {
            documents.push(String::new());
        }
        documents.last_mut().unwrap().push_str(part);
    }
    documents
}

/// Megabytes per CPU second: the best of three passes, since the first meets everything for the first time.
pub fn rate<T>(documents: &[String], mut work: impl FnMut(&str) -> T) -> f64 {
    let bytes: usize = documents.iter().map(String::len).sum();
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let (start, cpu_start) = (Instant::now(), cpu_seconds());
        for document in documents {
            std::hint::black_box(work(document));
        }
        let wall = start.elapsed().as_secs_f64();
        best = best.min(cpu_seconds().zip(cpu_start).map_or(wall, |(end, start)| end - start));
    }
    bytes as f64 / 1e6 / best
}

/// Time that this thread has had a core, where Linux says so: other work on the machine then hardly matters.
fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<u64>().ok()? as f64 / 1e9)
}
