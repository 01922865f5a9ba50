//! What a tagger needs besides the documents: lists, models and tokenizers that the user gives by path or URL.

use std::path::PathBuf;

use serde::Deserialize;

use crate::error::{Error, Result};

/// One file that the user gives to a tagger.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// Where it can be opened.
    pub path: PathBuf,
    /// As the user named it; a URL where `path` is a copy.
    pub name: String,
}

/// What a tagger cannot work without.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// With its article, for messages: `a list of hosts`.
    pub what: &'static str,
    /// Where dolma 1.2.1 has it from; of several all are read.
    pub urls: &'static [&'static str],
}

/// What that tagger needs, for a tagger that needs anything.
pub fn needs(name: &str) -> Option<Need> {
    super::classifier::needs(name)
        .or_else(|| super::url::needs(name))
        .or_else(|| super::tokenizers::needs(name))
        .or_else(|| super::overlap::tagger::needs(name))
}

/// The resources of a tagger that cannot work without.
pub fn required<'a>(name: &str, resources: &'a [Resource]) -> Result<&'a [Resource]> {
    if !resources.is_empty() {
        return Ok(resources);
    }
    let need = needs(name).unwrap_or(Need { what: "a file", urls: &[] });
    let message = format!("is not set, and the tagger \"{name}\" needs it; expected {}", need.what);
    let hint = match need.urls {
        [] => format!("give {name}=PATH in resources"),
        [url] => format!("give {name}=PATH in resources; dolma 1.2.1 reads {url}"),
        [url, more @ ..] => {
            format!(
                "give {name}=PATH in resources, once for each list; dolma 1.2.1 reads {url} and {} more",
                more.len()
            )
        }
    };
    Err(Error::config(format!("resources.{name}"), message).with_hint(hint))
}
