//! A body of several pieces of memory, which are sent without being copied.

use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

struct Pieces(std::vec::IntoIter<Bytes>);

/// The body of these pieces, one after the other. Its length is known, and so sent.
pub(super) fn body(pieces: Vec<Bytes>) -> Body {
    Body::new(Pieces(pieces.into_iter()))
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_slice().iter().map(|piece| piece.len() as u64).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use hyper::body::Body as _;

    #[tokio::test]
    async fn the_pieces_are_one_body_of_known_length() {
        let pieces = vec![Bytes::from("ab"), Bytes::from("c"), Bytes::new(), Bytes::from("def")];
        let body = body(pieces);
        assert_eq!(body.size_hint().exact(), Some(6));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abcdef");
    }
}
