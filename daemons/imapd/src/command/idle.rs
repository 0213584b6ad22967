//! IDLE (RFC 2177): news as they come.

use crate::session::{Arrived, Done, Refused, Session, done};
use imap::put;
use tokio::io::{AsyncRead, AsyncWrite};

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    pub(super) async fn idle(&mut self) -> Done {
        put::continuation(&mut self.out, "idling");
        self.codec.expect_response();
        let mut watch = self.selected.as_ref().map(|selected| selected.view.watch());
        self.refresh().await?;
        loop {
            self.tell(true, &[]);
            if self.has_input() {
                break;
            }
            self.flush().await?;
            let news = async {
                match &mut watch {
                    Some(watch) => {
                        if watch.changed().await.is_err() {
                            std::future::pending::<()>().await;
                        }
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                filled = self.fill() => {
                    filled?;
                    break;
                }
                () = news => {}
            }
        }
        match self.arrival().await? {
            Arrived::Response(line) if line.eq_ignore_ascii_case(b"DONE") => done("completed"),
            _ => Err(Refused::Bad("DONE was expected")),
        }
    }
}
