//! A Unix stream whose octets carry descriptors (SCM_RIGHTS), on tokio and in blocking form.

use crate::frame::{FrameError, HEADER, Header, Kind, MAX_DESCRIPTORS, MAX_PAYLOAD};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use types::TraceId;

/// What a read asks for at least: several small frames at once.
const READ: usize = 64 * 1024;
/// A receive buffer beyond this is given back when it is empty.
const KEEP: usize = 128 * 1024;

/// A frame on its way out: header and payload in one buffer, and the descriptors that go with it.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) octets: bytes::Bytes,
    pub(crate) descriptors: std::sync::Arc<Vec<OwnedFd>>,
}

impl Outgoing {
    /// Without descriptors.
    pub(crate) fn plain(octets: Vec<u8>) -> Self {
        Self {
            octets: octets.into(),
            descriptors: std::sync::Arc::default(),
        }
    }
}

/// A frame that came in.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Makes a frame of a payload that serde knows.
pub(crate) fn frame<T: serde::Serialize>(
    kind: Kind,
    operation: u16,
    id: u64,
    trace: TraceId,
    deadline_ms: u32,
    payload: &T,
) -> io::Result<Vec<u8>> {
    let octets = postcard::to_extend(payload, vec![0; HEADER]).map_err(io::Error::other)?;
    seal(octets, kind, operation, id, trace, deadline_ms, 0)
}

/// Writes the header into a buffer that has room for it before its payload.
pub(crate) fn seal(
    mut octets: Vec<u8>,
    kind: Kind,
    operation: u16,
    id: u64,
    trace: TraceId,
    deadline_ms: u32,
    descriptors: u8,
) -> io::Result<Vec<u8>> {
    let len = u32::try_from(octets.len().saturating_sub(HEADER)).unwrap_or(u32::MAX);
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
    if len as usize > MAX_PAYLOAD {
        return Err(invalid(FrameError::TooLong(len)));
    }
    if descriptors > MAX_DESCRIPTORS {
        return Err(invalid(FrameError::Descriptors(descriptors)));
    }
    let header = Header {
        len,
        operation,
        kind,
        descriptors,
        id,
        trace,
        deadline_ms,
    };
    if let Some(fixed) = octets.first_chunk_mut::<HEADER>() {
        *fixed = header.encode();
    }
    Ok(octets)
}

/// Collects octets and descriptors until they are frames.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    buffer: Vec<u8>,
    /// Octets of `buffer` that are filled.
    filled: usize,
    /// Octets of `buffer` that were taken as frames.
    taken: usize,
    descriptors: VecDeque<OwnedFd>,
}

impl Assembler {
    /// Reads once. `Ok(0)` is the end.
    pub(crate) fn receive(&mut self, from: impl AsFd) -> io::Result<usize> {
        self.make_room();
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS as usize))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let free = self.buffer.get_mut(self.filled..).unwrap_or_default();
        let received = recvmsg(
            from,
            &mut [IoSliceMut::new(free)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        self.filled += received.bytes;
        Ok(received.bytes)
    }

    fn make_room(&mut self) {
        if self.taken == self.filled {
            (self.taken, self.filled) = (0, 0);
            if self.buffer.len() > KEEP {
                self.buffer = Vec::new();
            }
        }
        let missing = Header::decode(self.pending()).ok().flatten();
        let wanted = missing
            .map_or(READ / 4, |header| HEADER + header.len as usize)
            .max(READ / 4);
        if self.taken > 0 && self.buffer.len() < self.taken + wanted {
            self.buffer.copy_within(self.taken..self.filled, 0);
            self.filled -= self.taken;
            self.taken = 0;
        }
        if self.buffer.len() < self.filled + wanted.min(READ) || self.buffer.len() < wanted {
            self.buffer.resize((self.filled + READ).max(wanted), 0);
        }
    }

    fn pending(&self) -> &[u8] {
        self.buffer.get(self.taken..self.filled).unwrap_or_default()
    }

    /// Takes octets as if they had been read.
    pub(crate) fn feed(&mut self, mut octets: &[u8]) {
        while !octets.is_empty() {
            self.make_room();
            let free = self.buffer.get_mut(self.filled..).unwrap_or_default();
            let (now, later) = octets.split_at(free.len().min(octets.len()));
            for (slot, octet) in free.iter_mut().zip(now) {
                *slot = *octet;
            }
            self.filled += now.len();
            octets = later;
        }
    }

    /// The next whole frame.
    pub(crate) fn next(&mut self) -> Result<Option<Incoming>, FrameError> {
        let pending = self.pending();
        let Some(header) = Header::decode(pending)? else {
            return self.incomplete();
        };
        let end = HEADER + header.len as usize;
        let Some(payload) = pending.get(HEADER..end).map(<[u8]>::to_vec) else {
            return self.incomplete();
        };
        let count = usize::from(header.descriptors);
        if self.descriptors.len() < count {
            return Err(FrameError::Descriptors(header.descriptors));
        }
        let descriptors = self.descriptors.drain(..count).collect();
        self.taken += end;
        Ok(Some(Incoming {
            header,
            payload,
            descriptors,
        }))
    }

    /// Descriptors come with the first octet of their frame (unix(7)): between frames none are left, and in a frame at
    /// most its own. What was sent beyond that is closed, so that a peer cannot use up our table.
    fn incomplete(&mut self) -> Result<Option<Incoming>, FrameError> {
        if self.pending().is_empty() {
            self.descriptors.clear();
        }
        match u8::try_from(self.descriptors.len()) {
            Ok(count) if count <= MAX_DESCRIPTORS => Ok(None),
            beyond => Err(FrameError::Descriptors(beyond.unwrap_or(u8::MAX))),
        }
    }
}

/// Sends octets with descriptors attached to the first of them; how many octets went.
pub(crate) fn send(to: impl AsFd, octets: &[u8], descriptors: &[OwnedFd]) -> io::Result<usize> {
    let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS as usize))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too many descriptors for one frame",
        ));
    }
    Ok(sendmsg(
        to,
        &[IoSlice::new(octets)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?)
}

/// Writes frames as few times as possible: those without descriptors are joined.
pub(crate) async fn write(
    stream: &tokio::net::UnixStream,
    frames: &mut Vec<Outgoing>,
) -> io::Result<()> {
    use tokio::io::Interest;
    let mut joined: Vec<u8> = Vec::new();
    let mut rest = frames.drain(..).peekable();
    while let Some(first) = rest.next() {
        let descriptors = first.descriptors;
        let octets: &[u8] = if rest.peek().is_some_and(|next| next.descriptors.is_empty()) {
            joined.clear();
            joined.extend_from_slice(&first.octets);
            while let Some(next) = rest.next_if(|next| next.descriptors.is_empty()) {
                joined.extend_from_slice(&next.octets);
            }
            &joined
        } else {
            &first.octets
        };
        let mut sent = 0;
        while let Some(left) = octets.get(sent..).filter(|left| !left.is_empty()) {
            let attached = if sent == 0 {
                descriptors.as_slice()
            } else {
                &[]
            };
            sent += stream
                .async_io(Interest::WRITABLE, || send(stream, left, attached))
                .await?;
        }
    }
    Ok(())
}

/// Waits until something was read; `false` is the end.
pub(crate) async fn read(
    stream: &tokio::net::UnixStream,
    assembler: &mut Assembler,
) -> io::Result<bool> {
    use tokio::io::Interest;
    Ok(stream
        .async_io(Interest::READABLE, || assembler.receive(stream))
        .await?
        > 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::net::UnixStream;

    fn call(payload: &[u8], id: u64, descriptors: u8) -> Vec<u8> {
        let octets = [&[0; HEADER], payload].concat();
        seal(octets, Kind::Call, 7, id, TraceId(9), 1000, descriptors).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn frames_come_whole_however_they_are_cut(
            sizes in proptest::collection::vec(0_usize..100_000, 1..8),
            cuts in proptest::collection::vec(1_usize..70_000, 1..8),
        ) {
            let payloads: Vec<Vec<u8>> =
                sizes.iter().enumerate().map(|(at, size)| vec![at as u8 + 1; *size]).collect();
            let octets: Vec<u8> = payloads
                .iter()
                .enumerate()
                .flat_map(|(at, payload)| call(payload, at as u64, 0))
                .collect();
            let mut assembler = Assembler::default();
            let (mut left, mut cut, mut came) = (octets.as_slice(), cuts.iter().cycle(), Vec::new());
            while !left.is_empty() {
                let (now, later) = left.split_at(left.len().min(*cut.next().unwrap()));
                assembler.feed(now);
                while let Some(frame) = assembler.next().unwrap() {
                    prop_assert_eq!(frame.header.id, came.len() as u64);
                    came.push(frame.payload);
                }
                left = later;
            }
            prop_assert_eq!(came, payloads);
        }
    }

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    /// Sends octets with so many descriptors, and reads them.
    fn pass(
        pair: &(UnixStream, UnixStream),
        assembler: &mut Assembler,
        octets: &[u8],
        descriptors: usize,
    ) {
        let descriptors: Vec<OwnedFd> = (0..descriptors).map(|_| null()).collect();
        assert_eq!(send(&pair.0, octets, &descriptors).unwrap(), octets.len());
        assert_eq!(assembler.receive(&pair.1).unwrap(), octets.len());
    }

    #[test]
    fn descriptors_stay_with_their_frames() {
        let pair = UnixStream::pair().unwrap();
        let mut assembler = Assembler::default();
        let octets = [call(b"a", 1, 2), call(b"b", 2, 0)].concat();
        pass(&pair, &mut assembler, &octets, 2);
        let counts = [(); 2].map(|()| assembler.next().unwrap().unwrap().descriptors.len());
        assert_eq!(counts, [2, 0]);
        assert!(assembler.next().unwrap().is_none());
    }

    #[test]
    fn descriptors_that_nobody_announced_are_closed() {
        let pair = UnixStream::pair().unwrap();
        let mut assembler = Assembler::default();
        pass(&pair, &mut assembler, &call(b"a", 1, 1), 4);
        assert_eq!(assembler.next().unwrap().unwrap().descriptors.len(), 1);
        assert!(assembler.next().unwrap().is_none());
        assert!(assembler.descriptors.is_empty());
        // The next frame gets its own and not a leftover.
        pass(&pair, &mut assembler, &call(b"a", 2, 1), 1);
        assert_eq!(assembler.next().unwrap().unwrap().descriptors.len(), 1);
    }

    #[test]
    fn descriptors_cannot_be_heaped_up_in_one_frame() {
        let pair = UnixStream::pair().unwrap();
        let mut assembler = Assembler::default();
        let octets = call(&[0; 100], 1, 4);
        pass(&pair, &mut assembler, octets.get(..40).unwrap(), 4);
        assert!(assembler.next().unwrap().is_none());
        pass(&pair, &mut assembler, octets.get(40..41).unwrap(), 4);
        assert_eq!(assembler.next().unwrap_err(), FrameError::Descriptors(8));
    }

    #[test]
    fn announced_descriptors_must_come() {
        let pair = UnixStream::pair().unwrap();
        let mut assembler = Assembler::default();
        pass(&pair, &mut assembler, &call(b"a", 1, 2), 1);
        assert_eq!(assembler.next().unwrap_err(), FrameError::Descriptors(2));
    }

    #[test]
    fn what_comes_in_is_closed_on_exec() {
        let pair = UnixStream::pair().unwrap();
        let mut assembler = Assembler::default();
        pass(&pair, &mut assembler, &call(b"a", 1, 1), 1);
        let frame = assembler.next().unwrap().unwrap();
        let flags = rustix::io::fcntl_getfd(frame.descriptors.first().unwrap()).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn more_descriptors_than_fit_are_refused_before_they_are_sent() {
        let octets = vec![0; HEADER];
        assert!(seal(octets, Kind::Call, 7, 1, TraceId(9), 0, MAX_DESCRIPTORS + 1).is_err());
    }
}
