//! One attempt to mint: what is asked of which core, and what is checked of the token.

use tokio::time::Instant;

use super::client::CoreClient;
use crate::rejection::RejectionKind;
use crate::token::error::MintError;
use crate::token::mint::{self, Mint, Minting};
use crate::token::service_token::Current;
use crate::verify::Verifier;

pub(super) struct Exchange {
    client: CoreClient,
    body: String,
    issuer: String,
    verifier: Option<Verifier>,
}

impl Exchange {
    pub(super) fn new(
        client: CoreClient,
        body: String,
        issuer: String,
        verifier: Option<Verifier>,
    ) -> Self {
        Self { client, body, issuer, verifier }
    }

    /// Mints a token and checks all but its signature. Returns its text as well.
    pub(super) async fn attempt(&self, deadline: Instant) -> Result<(Current, String), MintError> {
        let (jwt, core) = self.client.mint(&self.body, deadline).await?;
        let token = mint::check(&jwt, &core, &self.issuer, self.client.clock())?;
        Ok((token, jwt))
    }

    /// Has the verifier of the called service check the token, if there is one.
    pub(super) async fn verify(&self, jwt: &str) -> Result<(), MintError> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        match verifier.verify(jwt).await {
            Ok(_) => Ok(()),
            Err(source) if source.kind() == RejectionKind::KeysUnavailable => {
                Err(MintError::KeysUnavailable { source })
            }
            Err(source) => Err(MintError::Misconfigured { source }),
        }
    }
}

impl Mint for Exchange {
    fn mint(&self) -> Minting<'_> {
        Box::pin(async {
            let (token, jwt) = self.attempt(self.client.deadline()).await?;
            match self.verify(&jwt).await {
                // Without keys the new token is still better than the one that expires.
                Ok(()) | Err(MintError::KeysUnavailable { .. }) => Ok(token),
                Err(error) => Err(error),
            }
        })
    }
}
