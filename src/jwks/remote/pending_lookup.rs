//! A request whose key is in no set: what it may do, and its wait for the fetch that settles it.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};

use super::handle::RemoteJwks;
use super::key_cache::Unavailable;
use super::snapshot::{Newest, Published};
use crate::jose::{Algorithm, Jwk};
use crate::jwks::error::LookupError;
use crate::jwks::lookup::Lookup;

/// A place among the requests that wait. Holds the key set open: the fetch goes on while anybody
/// waits for it.
#[derive(Debug)]
pub(crate) struct Waiter {
    asker: Asker,
    receiver: watch::Receiver<Published>,
    deadline: Instant,
    _place: OwnedSemaphorePermit,
}

/// Who asks for which key.
#[derive(Debug)]
struct Asker {
    jwks: RemoteJwks,
    id: Option<String>,
    algorithm: Algorithm,
    /// How many fetches had begun when the key was asked for: only a later one can prove that there
    /// is no such key.
    asked_at: u64,
    /// Whether this request asked the task for a fetch; once is enough.
    asked: bool,
}

/// How a request stands.
enum Standing {
    Found(Arc<Jwk>),
    Refused(LookupError),
    Waits,
}

impl Waiter {
    /// A place for a request that asks for a key, or the answer at once where waiting is of no use.
    pub(in crate::jwks) fn look_up(
        jwks: RemoteJwks,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Lookup {
        let cache = Arc::clone(jwks.cache());
        // The wait has a deadline, for which it needs a runtime of its own, wherever the task runs.
        if Handle::try_current().is_err() || !cache.ensure_running() {
            return Lookup::Refused(cache.unavailable(Unavailable::FetchFailed));
        }
        let receiver = cache.published.subscribe();
        let published = receiver.borrow().clone();
        let id = id.map(str::to_owned);
        let mut asker = Asker { jwks, id, algorithm, asked_at: published.begun, asked: false };
        match asker.stand(&published) {
            Standing::Found(key) => return Lookup::Found(key),
            Standing::Refused(rejection) => return Lookup::Refused(rejection),
            Standing::Waits => {}
        }
        match Arc::clone(&cache.waiting).try_acquire_owned() {
            Ok(_place) => {
                let deadline = cache.clock.after(cache.limits.timeout);
                Lookup::Pending(Box::pin(Self { asker, receiver, deadline, _place }.wait()))
            }
            Err(_) => Lookup::Refused(LookupError::QueueFull),
        }
    }

    /// Waits until the key is there, a fetch proves that it is not, or one time-out has passed.
    pub(super) async fn wait(mut self) -> Result<Arc<Jwk>, LookupError> {
        loop {
            self.asker.jwks.cache().ensure_running();
            let published = self.receiver.borrow_and_update().clone();
            match self.asker.stand(&published) {
                Standing::Found(key) => return Ok(key),
                Standing::Refused(rejection) => return Err(rejection),
                Standing::Waits => {}
            }
            if timeout_at(self.deadline, self.receiver.changed()).await.is_err() {
                return Err(self.asker.jwks.cache().unavailable(no_answer(&published)));
            }
        }
    }
}

impl Asker {
    /// The set first, then what a fetch has proved, then whether one may be asked for.
    fn stand(&mut self, published: &Published) -> Standing {
        let cache = self.jwks.cache();
        let failed = matches!(published.newest, Newest::Failed(_));
        let usable = published.is_usable(cache.clock.now());
        if let Some(key) = published.set.find(self.id.as_deref(), self.algorithm).filter(|_| usable)
        {
            return Standing::Found(Arc::clone(key));
        }
        if published.ended > self.asked_at {
            // A fetch that began after the key was asked for has ended: it settles the matter.
            if failed {
                return Standing::Refused(cache.unavailable(no_answer(published)));
            }
            if let Some(id) = &self.id {
                cache.remember_in_vain(id);
            }
            return Standing::Refused(LookupError::UnknownKey);
        }
        if published.fetched.is_none() && !failed {
            // The first fetch is under way or about to begin.
            return Standing::Waits;
        }
        if !usable {
            return Standing::Refused(cache.refuse_and_ask(no_keys(published)));
        }
        if self.asked || published.is_fetching() {
            return Standing::Waits;
        }
        match &self.id {
            Some(id) if cache.was_asked_for_in_vain(id) => {
                Standing::Refused(LookupError::UnknownKey)
            }
            Some(_) if cache.ask_for_unknown_key() => {
                self.asked = true;
                Standing::Waits
            }
            // Beyond the gate. What the newest fetch says decides.
            Some(_) => {
                cache.report_refusal_at_the_gate();
                Standing::Refused(match failed {
                    true => cache.unavailable(Unavailable::FetchFailed),
                    false => LookupError::UnknownKey,
                })
            }
            // A token that names no key is judged by the set as it is: no fetch would tell which
            // key it meant.
            None => Standing::Refused(LookupError::UnknownKey),
        }
    }
}

fn no_keys(published: &Published) -> Unavailable {
    if published.fetched.is_none() { Unavailable::KeysNotLoaded } else { Unavailable::KeysStale }
}

fn no_answer(published: &Published) -> Unavailable {
    if published.fetched.is_none() { Unavailable::KeysNotLoaded } else { Unavailable::FetchFailed }
}
