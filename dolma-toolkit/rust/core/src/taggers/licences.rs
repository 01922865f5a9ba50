//! Creative Commons licences that the page of a document names (after dkpro-c4corpus, Habernal et al. 2016).

use std::borrow::Cow;

use regex::Regex;

use super::{Span, Tagger, Text};
use crate::error::{Error, Result};

const TYPE: &str = "by(?:-nc)?(?:-nd)?(?:-sa)?";

/// `cc_re` and `cc_re_fast`: looks at the HTML in `metadata.html`.
pub struct Licences {
    name: &'static str,
    expression: Regex,
}

impl Licences {
    /// Links and meta elements, with version and language.
    pub fn exact() -> Result<Licences> {
        let expression = format!(
            "<(?:a|A|meta)\\s[\\w\\p{{P}}\\s=]*\n*(?:href|HREF|content)=(?:'|\"|&quot;)?https*://creativecommons\\.org/\
             (?:licenses/(?P<licence>{TYPE})|(?P<public>publicdomain/(?:zero|certification|mark)))\
             (?P<version>/\\d+\\.\\d+)?(?:(?:/\\w{{2}})?/(?:(?:deed|legalcode)\\.)?(?P<language>\\w{{2}}))?.*?(?:'|\"|&quot;).*?>"
        );
        Licences::new("cc_re", &expression)
    }

    /// Addresses anywhere, only the kind of licence.
    pub fn fast() -> Result<Licences> {
        let expression = "https?://creativecommons\\.org/licenses/\
                          (?P<licence>by|by-sa|by-nd|by-nc|by-nc-sa|by-nc-nd|publicdomain)[\"/ >]";
        Licences::new("cc_re_fast", expression)
    }

    fn new(name: &'static str, expression: &str) -> Result<Licences> {
        let expression = Regex::new(expression)
            .map_err(|error| Error::config("taggers", format!("\"{name}\" cannot be built: {error}")))?;
        Ok(Licences { name, expression })
    }
}

impl Tagger for Licences {
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()> {
        let Some(html) = text.text_field("html") else {
            let message = format!("\"{}\" looks at metadata.html, and a document has none", self.name);
            return Err(
                Error::config("taggers", message).with_hint("keep the HTML of each document, or drop this tagger")
            );
        };
        if !["creativecommons.org/licenses", "creativecommons.org/publicdomain"].iter().any(|name| html.contains(name))
        {
            return Ok(());
        }
        for (number, found) in self.expression.captures_iter(&html).enumerate() {
            let licence = found.name("licence").or_else(|| found.name("public"));
            let mut kind = format!("cc_{}", licence.map_or("", |part| part.as_str()));
            if let Some(version) = found.name("version") {
                kind = format!("{kind}_{}", version.as_str().trim_matches('/'));
            }
            if let Some(language) = found.name("language") {
                kind = format!("{kind}_{}", language.as_str());
            }
            // the more licences a page names, the less each is trusted
            let score = 0.5 + 0.5 / (number as f64 + 1.0);
            spans.push(Span { start: 0, end: text.length_chars(), kind: Cow::Owned(kind), score });
        }
        Ok(())
    }
}
