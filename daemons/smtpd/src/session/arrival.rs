//! A message as it arrives: in memory while it is small, in queued's file beyond that.

use super::spool::{PIECE, Spool};
use crate::header::{Header, Removal};
use smtp::LineEndings;
use types::{Body, Octets};

/// What has arrived of a message.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// Not yet in the file.
    octets: Vec<u8>,
    /// What the header says, once it was looked at; `octets` begin behind what was taken out of it.
    header: Option<Header>,
    removal: Removal,
    spool: Option<Spool>,
    /// In the file, or on the way to it.
    spooled: u64,
    /// Received, what is over the limit included.
    received: u64,
    limit: u64,
    /// Only for BDAT: DATA's decoder watches lines itself.
    pub(crate) endings: LineEndings,
    /// The From fields' octets, kept from the header.
    from: Vec<Vec<u8>>,
}

impl Arrival {
    /// Nothing yet; `limit` is the message's largest size.
    pub(crate) fn new(removal: Removal, limit: u64) -> Self {
        Self {
            octets: Vec::new(),
            header: None,
            removal,
            spool: None,
            spooled: 0,
            received: 0,
            limit,
            endings: LineEndings::default(),
            from: Vec::new(),
        }
    }

    /// The next octets. What is over the limit is counted and not kept.
    pub(crate) fn push(&mut self, octets: &[u8]) {
        self.received += octets.len() as u64;
        if !self.too_large() {
            self.octets.extend_from_slice(octets);
        }
    }

    /// Whether it is over the limit.
    pub(crate) fn too_large(&self) -> bool {
        self.received > self.limit
    }

    /// Octets received.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Nothing of it is of use any more: the rest is read and not kept.
    pub(crate) fn give_up(&mut self) {
        self.octets = Vec::new();
        self.limit = 0;
    }

    /// Whether enough has come for a write.
    pub(crate) fn has_piece(&self) -> bool {
        self.octets.len() >= PIECE
    }

    /// Whether it is too large for a frame and not yet in a file.
    pub(crate) fn needs_spool(&self) -> bool {
        self.spool.is_none() && self.octets.len() > Body::INLINE_MAX
    }

    pub(crate) fn set_spool(&mut self, spool: Spool) {
        self.spool = Some(spool);
    }

    pub(crate) fn take_spool(&mut self) -> Option<Spool> {
        self.spool.take()
    }

    /// Begins to write what is in memory to the file.
    pub(crate) async fn spill(&mut self) -> std::io::Result<()> {
        self.look_at_header();
        let Some(spool) = &mut self.spool else {
            return Ok(());
        };
        let piece = std::mem::take(&mut self.octets);
        self.spooled += piece.len() as u64;
        self.octets = spool.write(piece).await?;
        Ok(())
    }

    /// All has come: what the header says, and the From fields.
    pub(crate) fn header(&mut self) -> (Header, Vec<Vec<u8>>) {
        self.look_at_header();
        (
            self.header.take().unwrap_or_default(),
            std::mem::take(&mut self.from),
        )
    }

    fn look_at_header(&mut self) {
        if self.header.is_some() || self.spooled > 0 {
            return;
        }
        let header = Header::scan(&self.octets, self.removal);
        let field =
            |place: &std::ops::Range<usize>| self.octets.get(place.clone()).map(<[u8]>::to_vec);
        self.from = header.from.iter().filter_map(field).collect();
        header.take_out(&mut self.octets);
        self.header = Some(header);
    }

    /// The body for queued; writes the rest to the file if there is one, which stays ours until it is committed.
    pub(crate) async fn finish(&mut self) -> std::io::Result<Body> {
        if self.spool.is_none() {
            return Ok(Body::Inline(Octets(std::mem::take(&mut self.octets))));
        }
        self.spill().await?;
        let len = self.spooled;
        match &mut self.spool {
            Some(spool) => {
                spool.finish().await?;
                Ok(Body::Slot {
                    slot: spool.slot.slot,
                    len,
                })
            }
            None => Err(std::io::ErrorKind::Other.into()),
        }
    }
}
