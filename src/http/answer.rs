//! Refusals as HTTP answers.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

/// A refusal: a status for programs, a sentence for people.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    text: String,
}

impl Problem {
    /// 404
    pub fn not_found(text: impl Into<String>) -> Self {
        Problem {
            status: StatusCode::NOT_FOUND,
            text: text.into(),
        }
    }

    /// 403
    pub fn forbidden(text: impl Into<String>) -> Self {
        Problem {
            status: StatusCode::FORBIDDEN,
            text: text.into(),
        }
    }

    /// 400
    pub fn bad_request(text: impl Into<String>) -> Self {
        Problem {
            status: StatusCode::BAD_REQUEST,
            text: text.into(),
        }
    }

    /// 409: it was done before and is done once only.
    pub fn conflict(text: impl Into<String>) -> Self {
        Problem {
            status: StatusCode::CONFLICT,
            text: text.into(),
        }
    }

    /// 503: it may work later.
    pub fn unavailable(text: impl Into<String>) -> Self {
        Problem {
            status: StatusCode::SERVICE_UNAVAILABLE,
            text: text.into(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        tracing::debug!(status = self.status.as_u16(), problem = %self.text, "http request refused");
        let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        (self.status, headers, self.text + "\n").into_response()
    }
}
