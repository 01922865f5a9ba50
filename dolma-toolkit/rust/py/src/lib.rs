//! `dolma._native`: arguments in, results out. All work is in `dolma_core`.

mod classifier;
mod detach;
mod error;
mod list;
mod overlap;
mod readers;
mod run;
mod stat;
mod store;
mod taggers;
mod tokens;

use pyo3::prelude::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("NativeError", module.py().get_type::<error::NativeError>())?;
    module.add_function(wrap_pyfunction!(list::taggers, module)?)?;
    module.add_function(wrap_pyfunction!(list::renamed_taggers, module)?)?;
    module.add_function(wrap_pyfunction!(list::tagger_needs, module)?)?;
    module.add_function(wrap_pyfunction!(run::mix_check, module)?)?;
    module.add_function(wrap_pyfunction!(classifier::sentences, module)?)?;
    module.add_function(wrap_pyfunction!(classifier::word_starts, module)?)?;
    module.add_function(wrap_pyfunction!(run::pending, module)?)?;
    module.add_function(wrap_pyfunction!(run::run, module)?)?;
    module.add_function(wrap_pyfunction!(stat::stat, module)?)?;
    module.add_function(wrap_pyfunction!(readers::why_not_json, module)?)?;
    module.add_function(wrap_pyfunction!(tokens::decode_tokens, module)?)?;
    module.add_function(wrap_pyfunction!(tokens::derive_tokens, module)?)?;
    module.add_class::<readers::Lines>()?;
    module.add_class::<classifier::FastText>()?;
    module.add_class::<classifier::Tagger>()?;
    module.add_class::<overlap::EvaluationIndex>()?;
    Ok(())
}
