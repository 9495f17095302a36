//! What a verifier requires of a token.

use std::time::Duration;

use serde_json::{Map, Value};

use super::claim_rule::ClaimRule;
use super::deny_list::{DenyList, DenyLists};
use super::excerpt::excerpt;
use super::log_target::LOG_TARGET;
use super::registered_claims::RegisteredClaims;
use super::validity::Validity;
use crate::jose::json::{RawString, RawValue};
use crate::jose::{Algorithm, Jws, NumericDate};
use crate::rejection::RejectionReason;

/// Upper limit of the leeway, which prolongs the lifetime of every token.
const MAX_LEEWAY: Duration = Duration::from_secs(300);

/// When the marker is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MarkerOrder {
    /// Before the requirements of service tokens: a token without the marker is rejected only for
    /// that, whatever its lifetime, `iss`, `aud` and `sub`.
    First,
    Last,
}

/// What a verifier requires of a token.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    algorithms: Vec<Algorithm>,
    max_token_len: usize,
    max_lifetime: Option<Duration>,
    /// The accepted issuers. Empty: any issuer or none.
    issuers: Vec<String>,
    /// The accepted audiences. Empty: any audience or none.
    audiences: Vec<String>,
    subject: Option<String>,
    marker: ClaimRule,
    /// The rules that a service token must meet besides the marker.
    required: Vec<ClaimRule>,
    deny_lists: DenyLists,
    leeway: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            algorithms: Algorithm::all().collect(),
            max_token_len: 8 * 1024,
            max_lifetime: None,
            issuers: Vec::new(),
            audiences: Vec::new(),
            subject: None,
            marker: ClaimRule::new("source", "microservice"),
            required: Vec::new(),
            deny_lists: DenyLists::default(),
            leeway: 30,
        }
    }
}

impl Policy {
    pub(crate) fn add_issuer(&mut self, issuer: String) {
        self.issuers.push(issuer);
    }

    /// Whether the policy names an issuer. An empty one is a [flaw](Self::flaws).
    pub(super) fn names_an_issuer(&self) -> bool {
        self.issuers.iter().any(|issuer| !issuer.is_empty())
    }

    /// An issuer that both policies name.
    pub(super) fn common_issuer<'p>(&'p self, other: &Self) -> Option<&'p String> {
        let is_common = |issuer: &&String| !issuer.is_empty() && other.issuers.contains(issuer);
        self.issuers.iter().find(is_common)
    }

    /// Whether the policy names this issuer.
    pub(super) fn names_issuer(&self, issuer: RawString<'_>) -> bool {
        is_accepted(issuer, &self.issuers)
    }

    pub(crate) fn add_audience(&mut self, audience: String) {
        self.audiences.push(audience);
    }

    pub(crate) fn require_subject(&mut self, subject: String) {
        self.subject = Some(subject);
    }

    pub(super) fn allow_only(&mut self, algorithms: Vec<Algorithm>) {
        self.algorithms = algorithms;
    }

    pub(super) fn allow_leeway(&mut self, leeway: Duration) {
        self.leeway = leeway.min(MAX_LEEWAY).as_secs();
    }

    pub(crate) fn limit_lifetime(&mut self, max_lifetime: Duration) {
        self.max_lifetime = Some(max_lifetime);
    }

    pub(super) fn limit_token_len(&mut self, max_token_len: usize) {
        self.max_token_len = max_token_len;
    }

    pub(super) fn require_marker(&mut self, marker: ClaimRule) {
        self.marker = marker;
    }

    pub(super) fn require_claim(&mut self, rule: ClaimRule) {
        self.required.push(rule);
    }

    pub(super) fn add_deny_list(&mut self, list: DenyList) {
        self.deny_lists.add(list);
    }

    pub(super) fn deny_lists(&self) -> &DenyLists {
        &self.deny_lists
    }

    /// The length of the longest token that is accepted, in bytes.
    pub(super) fn max_token_len(&self) -> usize {
        self.max_token_len
    }

    /// What the policy accepts, if a token can be rejected for `reason` because of the
    /// configuration.
    pub(super) fn expected(&self, reason: RejectionReason) -> Option<String> {
        use RejectionReason as R;
        let list = |names: &[String]| (!names.is_empty()).then(|| names.join(", "));
        match reason {
            R::TokenTooLong => Some(format!("at most {} bytes", self.max_token_len)),
            R::AlgorithmNotAllowed => {
                list(&self.algorithms.iter().map(Algorithm::to_string).collect::<Vec<_>>())
            }
            R::LifetimeTooLong => {
                self.max_lifetime.map(|most| format!("at most {} s", most.as_secs()))
            }
            R::WrongIssuer => list(&self.issuers),
            R::WrongAudience => list(&self.audiences),
            R::WrongSubject => self.subject.clone(),
            R::NotMicroservice => Some(self.marker.to_string()),
            R::ClaimRefused => {
                list(&self.required.iter().map(ClaimRule::to_string).collect::<Vec<_>>())
            }
            _ => None,
        }
    }

    pub(super) fn marker(&self) -> &ClaimRule {
        &self.marker
    }

    /// The rules that a service token must meet besides the marker.
    pub(super) fn required(&self) -> &[ClaimRule] {
        &self.required
    }

    /// Logs each rule, and an error for each [flaw](ClaimRule::flaw).
    pub(super) fn log_rules(&self) {
        self.marker.log();
        self.required.iter().for_each(ClaimRule::log);
        for flaw in self.flaws() {
            tracing::error!(target: LOG_TARGET, flaw, "verifier setting matches no token");
        }
    }

    /// The flaws of the policy besides those of its rules.
    fn flaws(&self) -> impl Iterator<Item = &'static str> {
        let has_empty = |names: &[String]| names.iter().any(String::is_empty);
        let flaws = [
            (has_empty(&self.issuers), "an accepted issuer is empty"),
            (has_empty(&self.audiences), "an accepted audience is empty"),
            (has_empty(self.subject.as_slice()), "the accepted subject is empty"),
            (self.algorithms.is_empty(), "the list of algorithms is empty"),
        ];
        flaws.into_iter().filter_map(|(is_present, flaw)| is_present.then_some(flaw))
    }

    /// In seconds.
    pub(super) fn leeway(&self) -> u64 {
        self.leeway
    }

    /// What a token that was rejected for `reason` has instead: its `iss` or `aud`, which may be
    /// forged. `None` for any other reason, and if the token has no such claim.
    pub(super) fn unverified(&self, reason: RejectionReason, token: &[u8]) -> Option<String> {
        if !matches!(reason, RejectionReason::WrongIssuer | RejectionReason::WrongAudience) {
            return None;
        }
        let jws = Jws::parse(std::str::from_utf8(token).ok()?, self.max_token_len).ok()?;
        let claims = RegisteredClaims::scan(jws.payload())?;
        let claim = if reason == RejectionReason::WrongIssuer { claims.iss } else { claims.aud };
        claim.map(excerpt)
    }

    /// Checks a parsed token before its claims are read: its length, that it has claims, and that
    /// its algorithm is allowed.
    pub(super) fn check_form(&self, token: &str, jws: &Jws<'_>) -> Result<(), RejectionReason> {
        if token.len() > self.max_token_len {
            return Err(RejectionReason::TokenTooLong);
        }
        if jws.payload().is_empty() {
            return Err(RejectionReason::NotThreeParts);
        }
        if !self.allows(jws.algorithm()) {
            return Err(RejectionReason::AlgorithmNotAllowed);
        }
        Ok(())
    }

    pub(super) fn allows(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Checks the registered claims. `now` is in Unix seconds. The signature may still be
    /// unchecked.
    ///
    /// # Errors
    ///
    /// The first date that is invalid, or [`RejectionReason::MalformedClaims`] if the payload is
    /// not a single JSON object or has one of these claims twice.
    pub(crate) fn check_claims(
        &self,
        payload: &[u8],
        now: u64,
    ) -> Result<CheckedClaims, RejectionReason> {
        let claims = RegisteredClaims::scan(payload).ok_or(RejectionReason::MalformedClaims)?;
        let validity = self.check_dates(&claims, now)?;
        let requirements = self
            .check_lifetime(&claims, validity)
            .and_then(|()| self.check_names(&claims))
            .and_then(|()| check_confirmation(&claims));
        Ok(CheckedClaims { validity, requirements })
    }

    /// Whether the claims have the marker, which only service tokens have.
    pub(crate) fn has_marker(&self, claims: &Map<String, Value>) -> bool {
        self.marker.is_met_by(claims)
    }

    /// Checks the rules that a service token must meet besides the marker.
    pub(super) fn check_required(
        &self,
        claims: &Map<String, Value>,
    ) -> Result<(), RejectionReason> {
        let are_met = self.required.iter().all(|rule| rule.is_met_by(claims));
        if are_met { Ok(()) } else { Err(RejectionReason::ClaimRefused) }
    }

    /// Checks `exp`, `nbf` and `iat`. At `exp` plus the leeway the token has already expired
    /// (RFC 7519 §4.1.4).
    fn check_dates(
        &self,
        claims: &RegisteredClaims<'_>,
        now: u64,
    ) -> Result<Validity, RejectionReason> {
        let malformed = RejectionReason::MalformedExpiration;
        let expires_at = date(claims.exp, malformed)?.ok_or(malformed)?.floor;
        let mut validity = Validity::new(expires_at, self.leeway);
        if !validity.contains(now) {
            return Err(RejectionReason::Expired);
        }
        if let Some(not_before) = date(claims.nbf, RejectionReason::MalformedNotBefore)? {
            validity = validity.starting_at(not_before.ceil.saturating_sub(self.leeway));
            if !validity.contains(now) {
                return Err(RejectionReason::NotYetValid);
            }
        }
        if let Some(issued_at) = date(claims.iat, RejectionReason::MalformedIssuedAt)? {
            validity = validity.starting_at(issued_at.ceil.saturating_sub(self.leeway));
            validity = validity.with_issued_at(issued_at.floor);
            if !validity.contains(now) {
                return Err(RejectionReason::IssuedInFuture);
            }
        }
        Ok(validity)
    }

    fn check_lifetime(
        &self,
        claims: &RegisteredClaims<'_>,
        validity: Validity,
    ) -> Result<(), RejectionReason> {
        let Some(max_lifetime) = self.max_lifetime else { return Ok(()) };
        let malformed = RejectionReason::MalformedIssuedAt;
        let issued_at = date(claims.iat, malformed)?.ok_or(malformed)?.floor;
        // With `iat` after `exp` the lifetime counts as zero.
        if validity.expires_at().saturating_sub(issued_at) > max_lifetime.as_secs() {
            return Err(RejectionReason::LifetimeTooLong);
        }
        Ok(())
    }

    /// Checks `iss`, `aud` and `sub`. A configured claim is mandatory. A claim that is present must
    /// have its type (RFC 7519 §4.1), configured or not. An empty name that is configured is a
    /// [flaw](Self::flaws) and matches no claim.
    fn check_names(&self, claims: &RegisteredClaims<'_>) -> Result<(), RejectionReason> {
        let is_one_of = |claim: Option<RawValue<'_>>, accepted: &[String]| match claim {
            None => accepted.is_empty(),
            Some(name) => name
                .as_string()
                .is_some_and(|name| accepted.is_empty() || is_accepted(name, accepted)),
        };
        if !is_one_of(claims.iss, &self.issuers) {
            return Err(RejectionReason::WrongIssuer);
        }
        if !claims.aud.map_or(self.audiences.is_empty(), |aud| self.is_audience(aud)) {
            return Err(RejectionReason::WrongAudience);
        }
        if !is_one_of(claims.sub, self.subject.as_slice()) {
            return Err(RejectionReason::WrongSubject);
        }
        Ok(())
    }

    /// Whether `aud` is a string or an array of strings (RFC 7519 §4.1.3) and, once audiences are
    /// configured, holds one of them.
    fn is_audience(&self, aud: RawValue<'_>) -> bool {
        let mut found = self.audiences.is_empty();
        let mut check = |name: RawString<'_>| {
            found = found || is_accepted(name, &self.audiences);
            Some(())
        };
        let are_strings = match aud.as_string() {
            Some(name) => check(name),
            None => aud.elements(|element| check(element.as_string()?)),
        };
        are_strings.is_some() && found
    }
}

/// The result for the registered claims of a token whose dates are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckedClaims {
    pub(crate) validity: Validity,
    /// The result of the checks that apply to service tokens alone: the lifetime, `iss`, `aud`,
    /// `sub` and the absence of `cnf`.
    pub(crate) requirements: Result<(), RejectionReason>,
}

fn is_accepted(name: RawString<'_>, accepted: &[String]) -> bool {
    accepted.iter().any(|accepted| !accepted.is_empty() && name.is(accepted))
}

/// Rejects a token with any `cnf`. RFC 7800 §3.1, RFC 8705 §3 and RFC 9449 §7.1 require proof that
/// the sender possesses the key that `cnf` names, and this crate does not check such a proof.
fn check_confirmation(claims: &RegisteredClaims<'_>) -> Result<(), RejectionReason> {
    claims.cnf.map_or(Ok(()), |_| Err(RejectionReason::SenderConstrained))
}

fn date(
    claim: Option<RawValue<'_>>,
    malformed: RejectionReason,
) -> Result<Option<NumericDate>, RejectionReason> {
    claim.map(|claim| NumericDate::read(claim).ok_or(malformed)).transpose()
}
