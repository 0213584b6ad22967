//! A message as it arrives: in memory while it is small, in queued's file beyond that.

use super::pace::Pace;
use super::rewrite::Masquerade;
use super::spool::{PIECE, Spool};
use crate::checks::Evidence;
use crate::header::{Header, Removal};
use smtp::{LineEndings, Repair};
use std::time::Instant;
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
    /// The time that it has.
    pub(crate) pace: Pace,
    /// Only for BDAT: DATA's decoder watches lines itself.
    pub(crate) endings: LineEndings,
    /// Only for BDAT, as far as it has text.
    repair: Repair,
    /// The From fields' octets, kept from the header.
    from: Vec<Vec<u8>>,
    /// Whether the header is kept and the body hashed for the checks of its sender.
    judged: bool,
    evidence: Option<Evidence>,
    masquerade: Option<Masquerade>,
}

impl Arrival {
    /// Nothing yet; `limit` is the message's largest size, `judged` whether its sender will be checked, `masquerade` what rewrites
    /// its header.
    pub(crate) fn new(
        removal: Removal,
        limit: u64,
        judged: bool,
        masquerade: Option<Masquerade>,
        pace: Pace,
    ) -> Self {
        Self {
            octets: Vec::new(),
            header: None,
            removal,
            spool: None,
            spooled: 0,
            received: 0,
            limit,
            pace,
            endings: LineEndings::default(),
            repair: Repair::default(),
            from: Vec::new(),
            judged,
            evidence: None,
            masquerade,
        }
    }

    /// The next octets. What is over the limit is counted and not kept.
    pub(crate) fn push(&mut self, octets: &[u8]) {
        self.received += octets.len() as u64;
        if !self.too_large() {
            self.octets.extend_from_slice(octets);
        }
    }

    /// The next octets of a text in chunks, with its line endings repaired.
    pub(crate) fn push_repaired(&mut self, octets: &[u8]) {
        let mut repair = std::mem::take(&mut self.repair);
        repair.feed(octets, &mut |piece| self.push(piece));
        self.repair = repair;
    }

    /// The last chunk has come.
    pub(crate) fn end_repair(&mut self) {
        let mut repair = std::mem::take(&mut self.repair);
        repair.finish(&mut |piece| self.push(piece));
    }

    /// Whether it is over the limit.
    pub(crate) fn too_large(&self) -> bool {
        self.received > self.limit
    }

    /// Whether it has come too slowly, or takes too long.
    pub(crate) fn is_slow(&mut self, now: Instant) -> bool {
        self.pace.is_slow(self.received, now) || self.pace.is_over(now)
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

    /// Octets of the header so far, and whether it is at its end: that must be in memory.
    pub(crate) fn header_so_far(&self) -> (usize, bool) {
        if self.header.is_some() || self.spooled > 0 {
            return (0, true);
        }
        match mailauth::header_len(&self.octets) {
            Some(len) => (len, true),
            None => (self.octets.len(), false),
        }
    }

    pub(crate) fn set_spool(&mut self, spool: Spool) {
        self.spool = Some(spool);
    }

    pub(crate) fn take_spool(&mut self) -> Option<Spool> {
        self.spool.take()
    }

    /// Begins to write what is in memory to the file.
    pub(crate) async fn spill(&mut self) -> std::io::Result<()> {
        if self.header.is_none() && self.spooled == 0 {
            self.look_at_header();
        } else {
            self.hash();
        }
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

    /// What the checks of the sender need; once, when all has come and after [`Self::header`].
    pub(crate) fn evidence(&mut self) -> Option<Evidence> {
        if self.spooled > 0 {
            self.hash();
        }
        self.evidence.take()
    }

    /// What is in memory belongs to the body and was not hashed yet.
    fn hash(&mut self) {
        if let Some(evidence) = &mut self.evidence {
            evidence.hashes.update(&self.octets);
        }
    }

    fn look_at_header(&mut self) {
        if self.header.is_some() || self.spooled > 0 {
            return;
        }
        if self.judged {
            let end = mailauth::header_len(&self.octets).unwrap_or(self.octets.len());
            let (header, body) = self.octets.split_at(end);
            let mut hashes = mailauth::BodyHashes::wanted(header);
            hashes.update(body);
            self.evidence = Some(Evidence {
                header: header.to_vec(),
                hashes,
            });
        }
        if let Some(masquerade) = &self.masquerade {
            masquerade.apply(&mut self.octets);
        }
        let header = Header::scan(&self.octets, &self.removal);
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
