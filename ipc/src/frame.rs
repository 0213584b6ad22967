//! The frame: a fixed header, then a postcard payload. Pure; the same codec serves both ends and the fuzzers.

use types::TraceId;

/// Octets of a header.
pub const HEADER: usize = 32;
/// Octets of a payload, at most: an inline body (64 KiB), its parsed form, and room for an envelope.
pub const MAX_PAYLOAD: usize = 192 * 1024;
/// Descriptors that may travel with one frame.
pub const MAX_DESCRIPTORS: u8 = 4;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first frame of each side.
    Hello,
    /// A request.
    Call,
    /// The answer to a request.
    Reply,
    /// The refusal of a request, or of a hello.
    Fault,
    /// A notice of the server.
    Event,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Self::Hello => 1,
            Self::Call => 2,
            Self::Reply => 3,
            Self::Fault => 4,
            Self::Event => 5,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Hello),
            2 => Some(Self::Call),
            3 => Some(Self::Reply),
            4 => Some(Self::Fault),
            5 => Some(Self::Event),
            _ => None,
        }
    }
}

/// The fixed part of a frame, little-endian on the wire:
/// length u32, operation u16, kind u8, descriptors u8, id u64, trace u64, deadline u32, reserved u32 (zero).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Octets of payload that follow.
    pub len: u32,
    /// The operation or event.
    pub operation: u16,
    /// What it is.
    pub kind: Kind,
    /// Descriptors that travel with it.
    pub descriptors: u8,
    /// Pairs an answer with its request; unique on a connection.
    pub id: u64,
    /// For logs.
    pub trace: TraceId,
    /// Milliseconds that the caller will wait; 0 in all but calls.
    pub deadline_ms: u32,
}

/// Why octets are no frame. The connection is of no use afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`MAX_PAYLOAD`].
    #[error("a payload of {0} octets is over the limit")]
    TooLong(u32),
    /// An unknown kind.
    #[error("unknown kind of frame {0}")]
    Kind(u8),
    /// More than [`MAX_DESCRIPTORS`].
    #[error("{0} descriptors are over the limit")]
    Descriptors(u8),
    /// Reserved octets are in use.
    #[error("reserved octets are not zero")]
    Reserved,
}

impl Header {
    /// The wire form.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        let mut put = |at: usize, octets: &[u8]| {
            for (slot, octet) in out.iter_mut().skip(at).zip(octets) {
                *slot = *octet;
            }
        };
        put(0, &self.len.to_le_bytes());
        put(4, &self.operation.to_le_bytes());
        put(6, &[self.kind.code(), self.descriptors]);
        put(8, &self.id.to_le_bytes());
        put(16, &self.trace.0.to_le_bytes());
        put(24, &self.deadline_ms.to_le_bytes());
        out
    }

    /// Reads the wire form; `Ok(None)` while there are fewer than [`HEADER`] octets.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn decode(octets: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some(fixed) = octets.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [l0, l1, l2, l3, o0, o1, kind, descriptors, rest @ ..] = *fixed;
        let [
            i0,
            i1,
            i2,
            i3,
            i4,
            i5,
            i6,
            i7,
            t0,
            t1,
            t2,
            t3,
            t4,
            t5,
            t6,
            t7,
            d0,
            d1,
            d2,
            d3,
            reserved @ ..,
        ] = rest;
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        if len as usize > MAX_PAYLOAD {
            return Err(FrameError::TooLong(len));
        }
        if descriptors > MAX_DESCRIPTORS {
            return Err(FrameError::Descriptors(descriptors));
        }
        if reserved != [0; 4] {
            return Err(FrameError::Reserved);
        }
        Ok(Some(Self {
            len,
            operation: u16::from_le_bytes([o0, o1]),
            kind: Kind::from_code(kind).ok_or(FrameError::Kind(kind))?,
            descriptors,
            id: u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7]),
            trace: TraceId(u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7])),
            deadline_ms: u32::from_le_bytes([d0, d1, d2, d3]),
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn header() -> impl Strategy<Value = Header> {
        let kinds = [
            Kind::Hello,
            Kind::Call,
            Kind::Reply,
            Kind::Fault,
            Kind::Event,
        ];
        (
            0..=u32::try_from(MAX_PAYLOAD).unwrap(),
            any::<u16>(),
            proptest::sample::select(kinds.to_vec()),
            0..=MAX_DESCRIPTORS,
            any::<(u64, u64, u32)>(),
        )
            .prop_map(
                |(len, operation, kind, descriptors, (id, trace, deadline_ms))| Header {
                    len,
                    operation,
                    kind,
                    descriptors,
                    id,
                    trace: TraceId(trace),
                    deadline_ms,
                },
            )
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(header in header()) {
            prop_assert_eq!(Header::decode(&header.encode()), Ok(Some(header)));
        }

        #[test]
        fn octets_are_a_header_that_encodes_to_them_or_an_error(octets: [u8; HEADER], kind in 0_u8..8) {
            let mut octets = octets;
            octets[3] = 0;
            octets[6] = kind;
            octets[7] %= 6;
            octets[28..].fill(0);
            match Header::decode(&octets) {
                Ok(header) => prop_assert_eq!(header.unwrap().encode(), octets),
                Err(FrameError::TooLong(len)) => prop_assert!(len as usize > MAX_PAYLOAD),
                Err(FrameError::Kind(code)) => prop_assert_eq!(code, kind),
                Err(FrameError::Descriptors(count)) => prop_assert_eq!(count, 5),
                Err(FrameError::Reserved) => prop_assert!(false),
            }
        }

        #[test]
        fn a_part_of_a_header_is_waited_for(header in header(), len in 0..HEADER) {
            prop_assert_eq!(Header::decode(&header.encode()[..len]), Ok(None));
        }
    }

    #[test]
    fn reserved_octets_are_zero() {
        let mut octets = [0; HEADER];
        octets[6] = 2;
        assert!(Header::decode(&octets).unwrap().is_some());
        octets[HEADER - 1] = 1;
        assert_eq!(Header::decode(&octets), Err(FrameError::Reserved));
    }
}
