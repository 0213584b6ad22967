//! IDLE (RFC 2177): news as they come.

use crate::session::{Arrived, Done, Refused, Session, done};
use imap::put;
use tokio::io::{AsyncRead, AsyncWrite};

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    pub(super) async fn idle(&mut self) -> Done {
        put::continuation(&mut self.out, "idling");
        self.codec.expect_response();
        let mut ears = self.ears(true);
        self.refresh().await?;
        loop {
            self.tell_news(true).await?;
            if self.has_input() {
                break;
            }
            self.flush().await?;
            tokio::select! {
                filled = self.fill() => {
                    filled?;
                    break;
                }
                () = ears.heard() => {}
            }
            ears = self.ears(true);
        }
        match self.arrival().await? {
            Arrived::Response(line) if line.eq_ignore_ascii_case(b"DONE") => done("completed"),
            _ => Err(Refused::Bad("DONE was expected")),
        }
    }
}
