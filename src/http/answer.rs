//! Refusals as HTTP answers.

use super::counters::Reason;
use axum::{
    extract::rejection::{JsonRejection, QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use rackstrap_base::text::one_line;

/// A refusal: a status for programs, a sentence for people, a reason for the counters.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    reason: Reason,
    text: String,
}

/// A refusal with its reason, handed from a handler to the connection, which counts it.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The reason, for the counters.
    pub reason: Reason,
    /// The text for the log.
    pub detail: String,
}

impl Problem {
    fn new(status: StatusCode, reason: Reason, text: impl Into<String>) -> Self {
        // The text is shown on terminals, and much of it repeats the request.
        let text = one_line(&text.into(), usize::MAX);
        Problem { status, reason, text }
    }

    /// A refusal with status 404.
    pub fn not_found(reason: Reason, text: impl Into<String>) -> Self {
        Problem::new(StatusCode::NOT_FOUND, reason, text)
    }

    /// A refusal with status 403.
    pub fn forbidden(reason: Reason, text: impl Into<String>) -> Self {
        Problem::new(StatusCode::FORBIDDEN, reason, text)
    }

    /// A refusal with status 400.
    pub fn bad_request(text: impl Into<String>) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, Reason::BadRequest, text)
    }

    /// 400: the body is malformed.
    pub fn bad_body(text: impl Into<String>) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, Reason::BadBody, text)
    }

    /// A refusal with status 405.
    pub fn wrong_method(text: impl Into<String>) -> Self {
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, Reason::WrongMethod, text)
    }

    /// 408: the body did not arrive in time.
    pub fn too_slow(text: impl Into<String>) -> Self {
        Problem::new(StatusCode::REQUEST_TIMEOUT, Reason::BodyTooSlow, text)
    }

    /// 409: it was done before, and is done only once.
    pub fn conflict(text: impl Into<String>) -> Self {
        Problem::new(StatusCode::CONFLICT, Reason::Redeemed, text)
    }

    /// 410: only another image can help, so the agent starts again instead of repeating the request.
    pub fn gone(text: impl Into<String>) -> Self {
        Problem::new(StatusCode::GONE, Reason::BadRequest, text)
    }

    /// 503: a later attempt may succeed.
    pub fn unavailable(text: impl Into<String>) -> Self {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, Reason::Unavailable, text)
    }

    /// A refusal with status 413.
    pub fn too_large(most: usize) -> Self {
        let text = format!("a body may have at most {most} bytes; send less at once");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Reason::BodyTooLarge, text)
    }

    /// The sentence for people.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The refusal of a body that is not JSON, has the wrong content, or is longer than `most` bytes.
    pub fn of_body(rejection: &JsonRejection, most: usize) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::too_large(most),
            status => Problem::new(status, Reason::BadBody, rejection.body_text()),
        }
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        let text = rejection.body_text();
        Problem::bad_request(format!("{text}; ask for /ipxe?mac=52-54-00-01-01-01"))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        let refused = Refused {
            reason: self.reason,
            detail: self.text.clone(),
        };
        let mut response = (self.status, headers, self.text + "\n").into_response();
        response.extensions_mut().insert(refused);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_is_made_harmless() {
        assert_eq!(Problem::bad_request("no a\u{1b}[2Jb\n").text, "no a [2Jb ");
    }
}
