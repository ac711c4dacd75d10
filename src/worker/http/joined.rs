//! A stream to which a head and a small body are written at once.
//!
//! Owns nothing but room on the stack: to copy a small body behind its head costs less than to have the system gather both.

use std::io::{IoSlice, Result};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are copied at most.
const JOINED_MAX: usize = 4096;

/// Writes what is small as one piece; as the stream in it else.
pub(super) struct Joined<S>(pub(super) S);

impl<S: AsyncRead + Unpin> AsyncRead for Joined<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Joined<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let stream = Pin::new(&mut self.0);
        if pieces.iter().map(|piece| piece.len()).sum::<usize>() > JOINED_MAX {
            return stream.poll_write_vectored(context, pieces);
        }
        let mut room = [MaybeUninit::uninit(); JOINED_MAX];
        let mut joined = ReadBuf::uninit(&mut room);
        pieces.iter().for_each(|piece| joined.put_slice(piece));
        stream.poll_write(context, joined.filled())
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes 700 bytes at a time, and says in how many pieces they came.
    #[derive(Default)]
    struct Takes {
        written: Vec<u8>,
        pieces: Vec<usize>,
    }

    impl AsyncWrite for Takes {
        fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
            self.poll_write_vectored(context, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<Result<usize>> {
            let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).take(700).collect();
            self.written.extend(&bytes);
            self.pieces.push(pieces.len());
            Poll::Ready(Ok(bytes.len()))
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn everything_is_written_in_order_and_what_is_small_as_one_piece() {
        let head = b"POST / HTTP/1.1\r\n\r\n".as_slice();
        let most = JOINED_MAX - head.len();
        for (size, first) in [(0, 1), (1, 1), (most - 1, 1), (most, 1), (most + 1, 2), (5 * most, 2)] {
            let body: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let mut stream = Joined(Takes::default());
            let mut sent = 0;
            while sent < head.len() + size {
                let rest = [head.get(sent..), body.get(sent.saturating_sub(head.len())..)];
                let pieces = rest.map(|piece| IoSlice::new(piece.unwrap_or_default()));
                let mut context = Context::from_waker(std::task::Waker::noop());
                match Pin::new(&mut stream).poll_write_vectored(&mut context, &pieces) {
                    Poll::Ready(Ok(written)) => sent += written,
                    other => panic!("{other:?}"),
                }
            }
            assert!(stream.0.written == [head, &body].concat(), "{size}");
            assert_eq!(stream.0.pieces.first(), Some(&first), "{size}");
        }
    }
}
