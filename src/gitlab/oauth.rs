//! The calls that trade in codes and tokens: exchange, refresh, revoke.
//!
//! A confidential application authenticates with HTTP Basic, a public one only names itself. Status and content type are judged before the
//! `oauth2` crate reads a body, since it would take GitLab's maintenance page for a malformed answer; and its parse errors, which carry that
//! body, are dropped.
//!
//! GitLab now and then answers `invalid_grant` for a code or refresh token that its database replica has not seen yet (gitlab#599181): both
//! are tried a second time after a second, which spends nothing. A call whose reply was lost is never repeated.

use std::{borrow::Cow, fmt, future::Future, pin::Pin, time::Duration};

use ::http::{Request, header};
use bytes::Bytes;
use oauth2::{
    AsyncHttpClient, AuthType, AuthorizationCode, Client, ClientId, ClientSecret, EndpointNotSet,
    EndpointSet, ExtraTokenFields, HttpRequest, HttpResponse, PkceCodeVerifier, RedirectUrl,
    RefreshToken, RequestTokenError, StandardRevocableToken, StandardTokenResponse, TokenResponse,
    TokenUrl,
    basic::{
        BasicErrorResponse, BasicErrorResponseType, BasicRevocationErrorResponse,
        BasicTokenIntrospectionResponse, BasicTokenType,
    },
};
use serde::{Deserialize, Serialize};
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::{
    CallError, Provider,
    http::{self, USUAL},
    lane::Lane,
};

/// Between the two attempts with a grant that GitLab says it doesn't know.
const LAG: Duration = Duration::from_secs(1);
/// Assumed when GitLab doesn't say how long an access token lives; early enough for any setting but the shortest.
const LIFETIME: Duration = Duration::from_hours(1);
/// No access token is believed to live longer.
const LONGEST: Duration = Duration::from_hours(30 * 24);
/// The longest token that is accepted, in bytes: GitLab's have 64, future ones are signed.
const TOKEN: usize = 8 << 10;
/// The longest ID token: GitLab puts direct groups in, of which there may be thousands.
const ID_TOKEN: usize = 512 << 10;

/// Tokens as GitLab gave them; never printed.
#[derive(Clone)]
pub struct TokenSet {
    /// The access token, opaque.
    pub access: Zeroizing<String>,
    /// The refresh token; GitLab always gives one.
    pub refresh: Option<Zeroizing<String>>,
    /// How long the access token lives from now on.
    pub expires_in: Duration,
    /// Scopes granted; empty if GitLab doesn't say.
    pub scope: Vec<String>,
    /// The ID token, not verified yet.
    pub id_token: Option<String>,
}

impl fmt::Debug for TokenSet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "TokenSet({:?} for {:?})", self.scope, self.expires_in)
    }
}

/// Why a code was not traded for tokens.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The code is used, expired or not ours, or the verifier or redirect URI is another.
    #[error("GitLab doesn't accept the code")]
    InvalidGrant,
    /// The application is unknown, or the secret wrong.
    #[error("GitLab doesn't accept the application's id and secret")]
    InvalidClient,
    /// No answer that says anything.
    #[error("GitLab can't be asked")]
    Unavailable {
        /// When to try again, if GitLab says so.
        retry_after: Option<Duration>,
        /// What happened.
        source: CallError,
    },
    /// An answer that GitLab does not send, or another error than the above.
    #[error("unexpected answer from the token endpoint: {0}")]
    Answer(String),
}

/// Why a session's tokens were not renewed.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The refresh token is used, revoked or not ours.
    #[error("GitLab doesn't accept the refresh token")]
    InvalidGrant,
    /// The application is unknown, or the secret wrong.
    #[error("GitLab doesn't accept the application's id and secret")]
    InvalidClient,
    /// No answer that says anything.
    #[error("GitLab can't be asked")]
    Unavailable {
        /// When to try again, if GitLab says so.
        retry_after: Option<Duration>,
        /// Whether GitLab may have spent the refresh token all the same.
        sent: bool,
        /// What happened.
        source: CallError,
    },
    /// An answer that GitLab does not send, or another error than the above.
    #[error("unexpected answer from the token endpoint: {0}")]
    Answer(String),
}

/// Why a token was not revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// GitLab doesn't accept the application, or the token is another application's.
    #[error("GitLab doesn't let this application revoke the token")]
    InvalidClient,
    /// No answer that says anything.
    #[error("GitLab can't be asked")]
    Unavailable(#[source] CallError),
}

/// What `oauth2` doesn't know of the answer.
#[derive(Deserialize, Serialize)]
struct IdToken {
    id_token: Option<String>,
}

impl ExtraTokenFields for IdToken {}

impl fmt::Debug for IdToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("IdToken")
    }
}

type Response = StandardTokenResponse<IdToken, BasicTokenType>;
type Api = Client<
    BasicErrorResponse,
    Response,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

/// What went wrong at the token endpoint, whatever was traded.
enum Failure {
    Grant,
    Client,
    Call(CallError),
    Answer(String),
}

impl Provider {
    /// Trades a code for tokens.
    ///
    /// # Errors
    /// See [`ExchangeError`].
    pub async fn exchange(
        &self,
        code: &str,
        verifier: &str,
        redirect_uri: &str,
    ) -> Result<TokenSet, ExchangeError> {
        let result = match self.trade_code(code, verifier, redirect_uri).await {
            Err(Failure::Grant) => {
                tokio::time::sleep(LAG).await;
                self.trade_code(code, verifier, redirect_uri).await
            },
            result => result,
        };
        result.map_err(|failure| match failure {
            Failure::Grant => ExchangeError::InvalidGrant,
            Failure::Client => ExchangeError::InvalidClient,
            Failure::Answer(what) => ExchangeError::Answer(what),
            Failure::Call(source) => {
                ExchangeError::Unavailable { retry_after: source.retry_after(), source }
            },
        })
    }

    /// Trades a refresh token for new tokens; the old pair is dead once GitLab has the call. One call at a time per session, please.
    ///
    /// # Errors
    /// See [`RefreshError`].
    pub async fn refresh(&self, refresh_token: &str) -> Result<TokenSet, RefreshError> {
        let result = match self.trade_refresh(refresh_token).await {
            Err(Failure::Grant) => {
                tokio::time::sleep(LAG).await;
                self.trade_refresh(refresh_token).await
            },
            result => result,
        };
        result.map_err(|failure| match failure {
            Failure::Grant => RefreshError::InvalidGrant,
            Failure::Client => RefreshError::InvalidClient,
            Failure::Answer(what) => RefreshError::Answer(what),
            Failure::Call(source) => RefreshError::Unavailable {
                retry_after: source.retry_after(),
                sent: source.is_sent(),
                source,
            },
        })
    }

    /// Revokes `token`, access or refresh: either way both die.
    ///
    /// # Errors
    /// See [`RevokeError`]; an unknown token is none.
    pub async fn revoke(&self, token: &str) -> Result<(), RevokeError> {
        // Not through `oauth2`, which insists on https: an internal URL may be plain.
        let request = self.revocation(token).map_err(RevokeError::Unavailable)?;
        let answer = self.client.call(Lane::Renewal, "revoke", request, USUAL).await;
        match answer.map_err(RevokeError::Unavailable)?.status.as_u16() {
            200 => Ok(()),
            401 | 403 => Err(RevokeError::InvalidClient),
            status => Err(RevokeError::Unavailable(CallError::Status(status, None))),
        }
    }

    async fn trade_code(&self, code: &str, verifier: &str, to: &str) -> Result<TokenSet, Failure> {
        let to = RedirectUrl::new(to.into())
            .map_err(|_| Failure::Answer("the redirect URI is no URL".into()))?;
        let api = self.api()?;
        let request = api
            .exchange_code(AuthorizationCode::new(code.into()))
            .set_pkce_verifier(PkceCodeVerifier::new(verifier.into()))
            .set_redirect_uri(Cow::Borrowed(&to));
        let answer = request.request_async(&Endpoint(&self.client, Lane::Code)).await;
        tokens(&answer.map_err(failure)?)
    }

    async fn trade_refresh(&self, token: &str) -> Result<TokenSet, Failure> {
        let api = self.api()?;
        let token = RefreshToken::new(token.into());
        let request = api.exchange_refresh_token(&token);
        let answer = request.request_async(&Endpoint(&self.client, Lane::Renewal)).await;
        tokens(&answer.map_err(failure)?)
    }

    fn api(&self) -> Result<Api, Failure> {
        let url = TokenUrl::new(self.client.url("oauth/token"))
            .map_err(|_| Failure::Answer("the base URL is no URL".into()))?;
        let api = Client::new(ClientId::new(self.client_id.clone())).set_token_uri(url);
        Ok(match &self.secret {
            Some(secret) => api
                .set_client_secret(ClientSecret::new(secret.to_string()))
                .set_auth_type(AuthType::BasicAuth),
            None => api.set_auth_type(AuthType::RequestBody),
        })
    }

    fn revocation(&self, token: &str) -> Result<Request<Bytes>, CallError> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("token", token);
        form.append_pair("client_id", &self.client_id);
        if let Some(secret) = &self.secret {
            form.append_pair("client_secret", secret);
        }
        Request::post(self.client.url("oauth/revoke"))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Bytes::from(form.finish()))
            .map_err(|error| CallError::Connect(self.base.to_string(), error.into()))
    }
}

/// The token endpoint, as `oauth2` calls it.
struct Endpoint<'p>(&'p http::Client, Lane);

impl<'c> AsyncHttpClient<'c> for Endpoint<'_> {
    type Error = CallError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, CallError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let Self(client, lane) = *self;
            let answer = client.call(lane, "token", request.map(Bytes::from), USUAL).await?;
            if !answer.json {
                return Err(CallError::NotJson(answer.status.as_u16()));
            }
            let mut response = HttpResponse::new(answer.body.to_vec());
            *response.status_mut() = answer.status;
            Ok(response)
        })
    }
}

fn failure(error: RequestTokenError<CallError, BasicErrorResponse>) -> Failure {
    match error {
        RequestTokenError::Request(error) => Failure::Call(error),
        RequestTokenError::ServerResponse(answer) => match answer.error() {
            BasicErrorResponseType::InvalidGrant => Failure::Grant,
            BasicErrorResponseType::InvalidClient | BasicErrorResponseType::UnauthorizedClient => {
                Failure::Client
            },
            BasicErrorResponseType::InvalidRequest => Failure::Answer("invalid_request".into()),
            BasicErrorResponseType::InvalidScope => Failure::Answer("invalid_scope".into()),
            BasicErrorResponseType::UnsupportedGrantType => {
                Failure::Answer("unsupported_grant_type".into())
            },
            // A stranger's word, so none of it is repeated.
            BasicErrorResponseType::Extension(_) => Failure::Answer("an unknown error".into()),
        },
        // Both may quote the body, tokens included.
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
            Failure::Answer("not the JSON of a token answer".into())
        },
    }
}

/// Checks an answer before anybody uses it: an error stored as a token would cost the session.
fn tokens(answer: &Response) -> Result<TokenSet, Failure> {
    let wrong = |what: &str| Err(Failure::Answer(what.into()));
    let usable = |token: &str| {
        (1..=TOKEN).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let access = answer.access_token().secret();
    let refresh = answer.refresh_token().map(RefreshToken::secret);
    let id_token = answer.extra_fields().id_token.as_ref();
    if *answer.token_type() != BasicTokenType::Bearer {
        return wrong("not a bearer token");
    }
    if !usable(access) || refresh.is_some_and(|token| !usable(token)) {
        return wrong("not a usable token");
    }
    if id_token.is_some_and(|token| token.len() > ID_TOKEN) {
        return wrong("an ID token too long");
    }
    Ok(TokenSet {
        access: Zeroizing::new(access.clone()),
        refresh: refresh.map(|token| Zeroizing::new(token.clone())),
        expires_in: answer.expires_in().unwrap_or(LIFETIME).min(LONGEST),
        scope: answer.scopes().into_iter().flatten().map(|scope| scope.to_string()).collect(),
        id_token: id_token.cloned(),
    })
}
