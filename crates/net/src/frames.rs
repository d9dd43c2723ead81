//! One stream with one peer, as whole frames.
//!
//! The frames are those of [`peerproof_wire::frame`], held to the smaller of
//! its limit and this stream's.
//! [`FrameStream::send`] and [`FrameStream::recv`] each carry one whole frame
//! or fail by their deadline: a peer that stays silent, sends a byte a second
//! or never reads costs at most that long and one window of memory. The
//! deadline counts per frame, not per byte.
//!
//! Both calls may be cancelled (dropped at an `.await`) and called again:
//! bytes that were received stay buffered, and a frame that was half written
//! is completed before the next one starts.
//!
//! A stream ends cleanly when the sender closes it between two frames; `recv`
//! then returns `None`. Over QUIC a dropped stream ends the same way, so a
//! conversation needs a last message of its own to tell "done" from "gone".
//! What the frames mean is none of this module's business.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use libp2p::Stream;
use peerproof_identity::PeerId;
use peerproof_wire::frame::Decoder;
use peerproof_wire::limits::MAX_FRAME_BYTES;
use tokio::time::{Instant, timeout_at};

use crate::FrameError;
use crate::limits::READ_CHUNK_BYTES;
use crate::streams::{Lifeline, Negotiated, Permit};

/// Bytes a frame's length may take in front of it.
const MAX_PREFIX_BYTES: usize = 3;

/// What one conversation allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Bytes of one frame, in both directions; never above
    /// [`MAX_FRAME_BYTES`].
    pub max_frame_bytes: usize,
    /// How long one frame may take to arrive, counted from the call or from
    /// its first byte, whichever was earlier.
    pub read_timeout: Duration,
    /// How long the transport may take to accept one frame.
    pub write_timeout: Duration,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self {
            max_frame_bytes: MAX_FRAME_BYTES,
            read_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
        }
    }
}

/// One stream with one peer.
#[derive(Debug)]
pub struct FrameStream {
    peer: PeerId,
    reader: FrameReader,
    writer: FrameWriter,
}

impl FrameStream {
    pub(crate) fn new(
        peer: PeerId,
        negotiated: Negotiated,
        limits: FrameLimits,
        permit: Option<Permit>,
    ) -> Self {
        let Negotiated { stream, lifeline } = negotiated;
        let (read, write) = stream.split();
        let permit = permit.map(Arc::new);
        let limit = limits.max_frame_bytes.min(MAX_FRAME_BYTES);
        Self {
            peer,
            reader: FrameReader {
                io: read,
                lifeline: lifeline.clone(),
                decoder: Decoder::default(),
                limit,
                taken: 0,
                chunk: vec![0; READ_CHUNK_BYTES].into_boxed_slice(),
                unread: 0..0,
                timeout: limits.read_timeout,
                partial_since: None,
                _permit: permit.clone(),
            },
            writer: FrameWriter {
                io: write,
                lifeline,
                limit,
                timeout: limits.write_timeout,
                pending: Vec::new(),
                written: 0,
                _permit: permit,
            },
        }
    }

    /// With whom.
    pub const fn peer(&self) -> PeerId {
        self.peer
    }

    /// Sends one frame. See [`FrameWriter::send`].
    pub async fn send(&mut self, frame: &[u8]) -> Result<(), FrameError> {
        self.writer.send(frame).await
    }

    /// Receives one frame. See [`FrameReader::recv`].
    pub async fn recv(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        self.reader.recv().await
    }

    /// Changes how long [`FrameStream::recv`] waits from now on.
    pub fn set_read_timeout(&mut self, timeout: Duration) {
        self.reader.timeout = timeout;
    }

    /// Sends bytes as they are, for tests of the other side's manners.
    #[doc(hidden)]
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        self.writer.pending.extend_from_slice(bytes);
        let deadline = Instant::now() + self.writer.timeout;
        // The test looks at what the other side makes of it.
        let _ = self.writer.drain(deadline).await;
    }

    /// Says that nothing more will be sent. Reading goes on.
    pub async fn finish(&mut self) -> Result<(), FrameError> {
        self.writer.finish().await
    }

    /// The two directions, for two tasks.
    pub fn split(self) -> (FrameReader, FrameWriter) {
        (self.reader, self.writer)
    }
}

/// The receiving direction.
pub struct FrameReader {
    io: ReadHalf<Stream>,
    lifeline: Lifeline,
    decoder: Decoder,
    limit: usize,
    /// Bytes the decoder has of the frame under way, its length included.
    taken: usize,
    chunk: Box<[u8]>,
    /// The part of `chunk` that was received and not yet decoded.
    unread: Range<usize>,
    timeout: Duration,
    /// When the first byte of the frame under way came.
    partial_since: Option<Instant>,
    _permit: Option<Arc<Permit>>,
}

impl FrameReader {
    /// Receives one frame; `None` when the other side closed between frames.
    ///
    /// # Errors
    /// [`FrameError::Refused`] before anything of the frame is stored,
    /// [`FrameError::TooLong`] before more than this stream's limit is stored,
    /// [`FrameError::Truncated`], [`FrameError::Idle`] and
    /// [`FrameError::Broken`]. After an error the stream is useless.
    pub async fn recv(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        let called = Instant::now();
        loop {
            if let Some(frame) = self.decode()? {
                return Ok(Some(frame));
            }
            let since = self.partial_since.unwrap_or(called);
            let read = alive(&mut self.lifeline, self.io.read(&mut self.chunk));
            match timeout_at(since + self.timeout, read).await {
                Err(_) => {
                    return Err(FrameError::Idle { doing: "sent", after: self.timeout });
                }
                Ok(Err(error)) => return Err(broken(&error)),
                Ok(Ok(0)) if self.decoder.is_idle() => return Ok(None),
                Ok(Ok(0)) => return Err(FrameError::Truncated { got: self.taken }),
                Ok(Ok(bytes)) => {
                    self.partial_since.get_or_insert_with(Instant::now);
                    self.unread = 0..bytes;
                }
            }
        }
    }

    /// Decodes what was received, up to the end of one frame.
    fn decode(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        while !self.unread.is_empty() {
            let taken = self.decoder.push(&self.chunk[self.unread.clone()])?;
            self.unread.start += taken;
            self.taken += taken;
            let frame = self.decoder.poll_frame();
            let got = frame
                .as_ref()
                .map_or_else(|| self.taken.saturating_sub(MAX_PREFIX_BYTES), |frame| frame.len());
            if got > self.limit {
                return Err(FrameError::TooLong { limit: self.limit, got });
            }
            if frame.is_some() {
                self.taken = 0;
                self.partial_since = (!self.unread.is_empty()).then(Instant::now);
                return Ok(frame);
            }
        }
        Ok(None)
    }

    /// Changes how long [`FrameReader::recv`] waits from now on.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }
}

/// The sending direction.
pub struct FrameWriter {
    io: WriteHalf<Stream>,
    lifeline: Lifeline,
    limit: usize,
    timeout: Duration,
    /// A frame that isn't wholly handed to the transport, and how much of it is.
    pending: Vec<u8>,
    written: usize,
    _permit: Option<Arc<Permit>>,
}

impl FrameWriter {
    /// Sends one frame and hands it to the transport. Returns before the
    /// other side has it; waits while the other side's window is full.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] and [`FrameError::Empty`], which write nothing
    /// and leave the stream usable; [`FrameError::Idle`] when the other side took nothing for too
    /// long; [`FrameError::Broken`].
    pub async fn send(&mut self, frame: &[u8]) -> Result<(), FrameError> {
        if frame.len() > self.limit {
            return Err(FrameError::TooLong { limit: self.limit, got: frame.len() });
        }
        if frame.is_empty() {
            return Err(FrameError::Empty);
        }
        let deadline = Instant::now() + self.timeout;
        self.drain(deadline).await?;
        write_length(frame.len(), &mut self.pending);
        self.pending.extend_from_slice(frame);
        self.drain(deadline).await
    }

    /// Says that nothing more will be sent.
    pub async fn finish(&mut self) -> Result<(), FrameError> {
        let deadline = Instant::now() + self.timeout;
        self.drain(deadline).await?;
        match timeout_at(deadline, alive(&mut self.lifeline, self.io.close())).await {
            Err(_) => Err(self.stuck()),
            Ok(result) => result.map_err(|error| broken(&error)),
        }
    }

    async fn drain(&mut self, deadline: Instant) -> Result<(), FrameError> {
        while self.written < self.pending.len() {
            let rest = &self.pending[self.written..];
            let write = alive(&mut self.lifeline, self.io.write(rest));
            match timeout_at(deadline, write).await {
                Err(_) => return Err(self.stuck()),
                Ok(Ok(0)) => return Err(broken(&io::ErrorKind::WriteZero.into())),
                Ok(Ok(bytes)) => self.written += bytes,
                Ok(Err(error)) => return Err(broken(&error)),
            }
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        self.pending.clear();
        self.written = 0;
        match timeout_at(deadline, alive(&mut self.lifeline, self.io.flush())).await {
            Err(_) => Err(self.stuck()),
            Ok(result) => result.map_err(|error| broken(&error)),
        }
    }

    const fn stuck(&self) -> FrameError {
        FrameError::Idle { doing: "took", after: self.timeout }
    }
}

/// Does something on a stream, unless nothing can be done at once and the
/// connection is gone.
async fn alive<T>(
    lifeline: &mut Lifeline,
    action: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    tokio::select! {
        biased;
        result = action => result,
        // Nothing is ever sent: a change is the end.
        _ = lifeline.changed() => Err(io::Error::new(
            io::ErrorKind::NotConnected,
            "the connection was closed",
        )),
    }
}

fn broken(error: &io::Error) -> FrameError {
    FrameError::Broken { detail: error.to_string() }
}

/// Appends a length as a minimal varint.
fn write_length(length: usize, out: &mut Vec<u8>) {
    let mut rest = length;
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

impl std::fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameReader").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for FrameWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameWriter").finish_non_exhaustive()
    }
}
