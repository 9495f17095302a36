//! Which requests carry which token, and in which header.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};

use super::message::OutgoingRequest;
use super::non_empty::NonEmpty;
use super::origin::{Destination, Origin};
use super::request_token::RequestToken;
use crate::error::ConfigError;
use crate::token::{Refusal, RejectedToken, ServiceToken, TokenCopy};

/// The options of a layer, shared by every service that it makes.
#[derive(Clone, Debug)]
pub(super) struct SendPolicy {
    /// One for all origins, or one for each.
    tokens: NonEmpty<ServiceToken>,
    /// The origins that have a token of their own. `None`: all origins share one.
    by_origin: Option<Vec<Target>>,
    /// The origins whose requests carry a token. `None`: all origins.
    targets: Option<Vec<Target>>,
    header: HeaderName,
    keeps_present: bool,
    /// Whether `targets` may hold plain http beyond loopback.
    allows_plain_http: bool,
    no_authority_logged: Arc<AtomicBool>,
}

/// An origin, and the index of its token.
#[derive(Clone, Debug)]
struct Target {
    origin: Origin,
    token: usize,
}

/// The token that a request carries, and the target that it goes to.
pub(super) struct ChosenToken {
    /// The index of the target. 0 if the policy has none.
    target: usize,
    /// The token of the request's [`RequestToken`]. `None`: that of the target.
    own: Option<ServiceToken>,
}

impl ChosenToken {
    /// A copy of the token of the request's [`RequestToken`].
    #[inline]
    pub(super) fn own_copy(&self) -> Option<TokenCopy> {
        self.own.as_ref().map(|token| TokenCopy::new(token.clone()))
    }
}

impl SendPolicy {
    /// Sends the token to every origin, in `Authorization`, and replaces a value that is present.
    pub(super) fn new(token: ServiceToken) -> Self {
        Self::with_tokens(NonEmpty::of_one(token), None)
    }

    /// Sends each token to its origin alone.
    pub(super) fn by_origin(tokens: Vec<(Origin, ServiceToken)>) -> Result<Self, ConfigError> {
        let (origins, tokens): (Vec<_>, Vec<_>) = tokens.into_iter().unzip();
        let mut targets: Vec<Target> = Vec::new();
        for (token, origin) in origins.into_iter().enumerate() {
            if targets.iter().any(|target| target.origin == origin) {
                return Err(ConfigError::DuplicateOrigin { origin: origin.to_string() });
            }
            targets.push(Target { origin, token });
        }
        let tokens = NonEmpty::collect(tokens).ok_or(ConfigError::NoOrigins)?;
        Ok(Self::with_tokens(tokens, Some(targets)))
    }

    fn with_tokens(tokens: NonEmpty<ServiceToken>, by_origin: Option<Vec<Target>>) -> Self {
        Self {
            tokens,
            targets: by_origin.clone(),
            by_origin,
            header: AUTHORIZATION,
            keeps_present: false,
            allows_plain_http: false,
            no_authority_logged: Arc::default(),
        }
    }

    /// Sends no token to other origins than these.
    pub(super) fn allow_only(&mut self, origins: Vec<Origin>) {
        let targets = match &self.by_origin {
            None => origins.into_iter().map(|origin| Target { origin, token: 0 }).collect(),
            Some(targets) => {
                let targets = targets.iter().filter(|target| origins.contains(&target.origin));
                targets.cloned().collect()
            }
        };
        self.targets = Some(targets);
        self.no_authority_logged = Arc::default();
    }

    pub(super) fn allow_plain_http(&mut self) {
        self.allows_plain_http = true;
    }

    pub(super) fn allows_plain_http(&self) -> bool {
        self.allows_plain_http
    }

    pub(super) fn keep_present(&mut self) {
        self.keeps_present = true;
    }

    pub(super) fn use_header(&mut self, name: HeaderName) {
        self.header = name;
    }

    /// A copy of each token. [`token_index`](Self::token_index) is an index in the list.
    pub(super) fn token_copies(&self) -> NonEmpty<TokenCopy> {
        self.tokens.map(|token| TokenCopy::new(token.clone()))
    }

    /// A copy of the token that a request carries.
    #[cfg(feature = "reqwest-middleware")]
    pub(super) fn token_copy(&self, chosen: &ChosenToken) -> TokenCopy {
        TokenCopy::new(self.token(chosen).clone())
    }

    /// The token that a request carries: that of its extension or, without one, that of its target.
    /// `None` if no token has to be added.
    #[inline]
    pub(super) fn choose(
        &self,
        request: &mut impl OutgoingRequest,
        extension: Option<RequestToken>,
    ) -> Option<ChosenToken> {
        let own = match extension {
            Some(extension) => Some(extension.into_token()?),
            None => None,
        };
        let mut target = 0;
        if let Some(targets) = &self.targets {
            let origins = targets.iter().map(|target| &target.origin);
            let found = request.origin().and_then(|origin| origin.position_in(origins));
            let Some(index) = found else {
                self.log_other_origin(request);
                return None;
            };
            target = index;
        }
        let is_kept = self.keeps_present && request.headers_mut().contains_key(&self.header);
        (!is_kept).then_some(ChosenToken { target, own })
    }

    /// Says why a request carries no token. Warns of the first one without authority, which has no
    /// origin to compare.
    fn log_other_origin(&self, request: &impl OutgoingRequest) {
        if request.has_authority() {
            tracing::debug!("request to another origin, service token not added");
        } else if !self.no_authority_logged.swap(true, Ordering::Relaxed) {
            tracing::warn!("request without authority, service token not added");
        }
    }

    /// The index of the target's token.
    #[inline]
    pub(super) fn token_index(&self, chosen: &ChosenToken) -> usize {
        self.targets.as_ref().map_or(0, |targets| targets[chosen.target].token)
    }

    fn token<'t>(&'t self, chosen: &'t ChosenToken) -> &'t ServiceToken {
        chosen.own.as_ref().unwrap_or_else(|| self.tokens.get(self.token_index(chosen)))
    }

    /// Adds a value of the chosen token to the request.
    #[inline]
    pub(super) fn insert(
        self: &Arc<Self>,
        request: &mut impl OutgoingRequest,
        chosen: ChosenToken,
        (value, serial): (&HeaderValue, u64),
    ) -> Sent {
        // The origin of the target says the same, and `destination` clones a reference-counted
        // value.
        let destination = if self.targets.is_none() { request.destination() } else { None };
        request.headers_mut().insert(&self.header, value.clone());
        Sent { policy: Arc::clone(self), chosen, serial, destination }
    }
}

/// The token that the layer added to a request.
pub(super) struct Sent {
    policy: Arc<SendPolicy>,
    chosen: ChosenToken,
    /// The serial of the sent value.
    serial: u64,
    /// Where the request went. `None` if the policy has targets, or if only the response tells.
    destination: Option<Destination>,
}

impl Sent {
    /// Reports to the token that the request was refused, and at which origin, if the response
    /// tells. Returns the rejected value if its successor may be accepted.
    pub(super) fn refused(
        &self,
        refusal: &Refusal,
        origin: Option<String>,
    ) -> Option<RejectedToken> {
        let Self { policy, chosen, .. } = self;
        let targets = policy.targets.as_ref();
        let target_origin = targets.map(|targets| targets[chosen.target].origin.to_string());
        let destination = || self.destination.as_ref().map(ToString::to_string);
        let token = policy.token(chosen);
        let origin = origin.or_else(|| target_origin.clone()).or_else(destination);
        let is_mended = token.refused(self.serial, refusal, origin, target_origin.as_deref());
        is_mended.then(|| RejectedToken::new(token.clone(), self.serial))
    }
}
