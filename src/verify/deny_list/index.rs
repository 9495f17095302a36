//! [`DenyIndex`]: the entries of a deny list, indexed for look-ups.

use std::collections::HashMap;

use quick_cache::DefaultHashBuilder;

use super::entry::DenyEntry;
use super::token_facts::TokenFacts;
use crate::rejection::RejectionReason;
use crate::verify::claim_path::ClaimPath;

/// The positions of entries.
type Positions = Vec<usize>;

/// The positions of the entries with a text. Not std's hasher, with which 10 000 entries for
/// tokens, callers and keys cost a new token 63 to 80 ns; with this one they cost 55 to 59 ns (bench
/// `layers`, row `changed_deny_list`). The texts are those of the list, which no sender of a token
/// can choose.
type ByText = HashMap<String, Positions, DefaultHashBuilder>;

/// The entries of a deny list.
///
/// An entry that requires a claim to be one of some strings is found by the value of the claim, and
/// any other entry for a key by its kid. Only the rest is compared with each token.
#[derive(Default)]
pub(super) struct DenyIndex {
    entries: Vec<DenyEntry>,
    by_claim: Vec<(ClaimPath, ByText)>,
    by_kid: ByText,
    rest: Positions,
}

impl DenyIndex {
    /// Indexes entries without a flaw.
    pub(super) fn new(entries: Vec<DenyEntry>) -> Self {
        let mut by_claim: HashMap<&ClaimPath, ByText> = HashMap::new();
        let mut by_kid = ByText::default();
        let mut rest = Positions::new();
        for (position, entry) in entries.iter().enumerate() {
            let mut rules = entry.claims.iter();
            let strings = rules.find_map(|rule| Some((rule.path(), rule.expected().strings()?)));
            if let Some((path, strings)) = strings {
                let by_value = by_claim.entry(path).or_default();
                for value in strings {
                    by_value.entry(value.to_owned()).or_default().push(position);
                }
            } else if let [kid] = &*entry.keys {
                by_kid.entry(kid.clone()).or_default().push(position);
            } else {
                rest.push(position);
            }
        }
        let by_claim = by_claim.into_iter().map(|(path, by_value)| (path.clone(), by_value));
        Self { by_claim: by_claim.collect(), by_kid, rest, entries }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Why the token is denied, if it is: an entry that denies the caller wins over one that
    /// revokes the token.
    pub(super) fn denial(&self, token: TokenFacts<'_>) -> Option<RejectionReason> {
        let by_claim = token.claims.into_iter().flat_map(|claims| {
            self.by_claim
                .iter()
                .filter_map(|(path, by_value)| by_value.get(path.find(claims)?.as_str()?))
        });
        let by_kid = token.kid.and_then(|kid| self.by_kid.get(kid));
        let candidates = by_claim.chain(by_kid).chain([&self.rest]).flatten();
        let matching = candidates.map(|at| &self.entries[*at]).filter(|entry| entry.matches(token));
        strongest(matching.map(DenyEntry::reason))
    }
}

/// The reason that wins among those of several entries or lists.
pub(super) fn strongest(
    reasons: impl IntoIterator<Item = RejectionReason>,
) -> Option<RejectionReason> {
    let mut strongest = None;
    for reason in reasons {
        strongest = Some(reason);
        if reason == RejectionReason::CallerDenied {
            break;
        }
    }
    strongest
}
