//! One order, from its beginning or from where an earlier process left it (RFC 8555 7.4).

use crate::answers::Answer;
use crate::authority::Authority;
use crate::config::{ChallengeKind, Target};
use crate::dns::{Publisher, Watcher};
use crate::jws;
use crate::state::Progress;
use crate::trouble::{Trouble, said};
use crate::worker::Worker;
use dns_update::{DnsRecord, DnsRecordType};
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, Challenge, ChallengeStatus, ChallengeType,
    Error, Identifier, Key, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use ipc::api::keyd::{AcmeKey, CertificateInstall, CertificateRequest, IssuedCertificate};
use rustls_pki_types::CertificateDer;
use std::time::Duration;
use types::TraceId;

/// Our account at the authority, ready for requests.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) account: Account,
    authority: Authority,
}

impl Worker {
    /// Gets a certificate, and has keyd use it.
    ///
    /// # Errors
    /// Why not; what was reached is in `progress`.
    pub(crate) async fn obtain(
        &mut self,
        target: &Target,
        current: Option<&IssuedCertificate>,
        progress: &mut Progress,
    ) -> Result<IssuedCertificate, Trouble> {
        let known = self.account().await?;
        if progress.order.is_none()
            && let Some(at) = self.announce(target, progress).await?
        {
            return Err(Trouble::Later(at));
        }
        if target.challenge == ChallengeKind::DnsPersist01 {
            // Before the authority hears of it: what it allows in an hour is for what can succeed.
            self.stand(target).await?;
        }
        let mut order = self.begin(&known, target, current, progress).await?;
        if order.state().status == OrderStatus::Pending {
            let mut answers = Vec::new();
            let proved = self
                .prove(&known, &mut order, target, progress, &mut answers)
                .await;
            drop(answers);
            self.unpublish(target, progress).await;
            proved?;
        }
        let chain = self.chain(&mut order, target).await?;
        let request = CertificateInstall {
            id: target.id.clone(),
            chain,
        };
        Ok(self.keyd.call(TraceId(0), &request).await?)
    }

    /// Our account: known from before, or made.
    pub(crate) async fn account(&mut self) -> Result<Known, Trouble> {
        if let Some(known) = &self.known {
            return Ok(known.clone());
        }
        let directory = self.config.directory.clone();
        let request = AcmeKey {
            directory: directory.clone(),
        };
        let key = self.keyd.call(TraceId(0), &request).await?;
        let (keyd, patience) = (self.keyd.clone(), self.patience.clone());
        let authority =
            Authority::new(&self.config, keyd, key, patience).map_err(Trouble::Setting)?;
        let builder = Account::builder_with_http(Box::new(authority.clone()));
        let contact = self.config.contacts();
        let told: Vec<&str> = contact.iter().map(String::as_str).collect();
        let mut kept = self.state.account();
        let account = if kept.directory == directory && !kept.url.is_empty() {
            // Signatures are made anew by keyd on their way out; this key is for nothing.
            let (_, idle) = Key::generate_pkcs8()?;
            let account = builder
                .from_parts(kept.url.clone(), idle, directory)
                .await?;
            if kept.contact != contact {
                account.update_contacts(&told).await?;
            }
            account
        } else {
            let new = NewAccount {
                contact: &told,
                terms_of_service_agreed: true,
                only_return_existing: false,
            };
            // RFC 8555 7.3.1: with a key that has an account, that one is found.
            let (account, _) = builder.create(&new, directory.clone(), None).await?;
            tracing::info!(
                directory,
                account = account.id(),
                "account at the authority"
            );
            account
        };
        kept.directory.clone_from(&self.config.directory);
        account.id().clone_into(&mut kept.url);
        kept.contact = contact;
        self.state.keep_account(&kept)?;
        self.board.account(account.id());
        let known = Known { account, authority };
        self.known = Some(known.clone());
        Ok(known)
    }

    /// The order under way, or a new one.
    async fn begin(
        &self,
        known: &Known,
        target: &Target,
        current: Option<&IssuedCertificate>,
        progress: &mut Progress,
    ) -> Result<Order, Trouble> {
        let same = progress.names == target.names && progress.directory == self.config.directory;
        if let Some(url) = progress.order.take().filter(|_| same) {
            match known.account.order(url.clone()).await {
                Ok(mut order) => {
                    if order.state().status != OrderStatus::Invalid {
                        tracing::info!(
                            id = target.id,
                            order = url,
                            "an order under way is taken up again"
                        );
                        progress.order = Some(url);
                        return Ok(order);
                    }
                }
                Err(Error::Api(problem)) => {
                    tracing::info!(
                        id = target.id,
                        order = url,
                        why = said(&problem),
                        "an order under way is gone"
                    );
                }
                Err(error) => {
                    progress.order = Some(url);
                    return Err(error.into());
                }
            }
        }
        let order = match self.new_order(known, target, current, progress).await {
            // RFC 9773 5: somebody replaced it already, so it is an order as any other.
            Err(trouble) if trouble.is_about_replacing() => {
                self.new_order(known, target, None, progress).await?
            }
            other => other?,
        };
        tracing::info!(
            id = target.id,
            order = order.url(),
            names = target.names.join(" "),
            challenge = target.challenge.word(),
            "ordered"
        );
        progress.order = Some(order.url().to_owned());
        progress.names.clone_from(&target.names);
        progress.directory.clone_from(&self.config.directory);
        self.state.keep(&target.id, progress)?;
        Ok(order)
    }

    async fn new_order(
        &self,
        known: &Known,
        target: &Target,
        current: Option<&IssuedCertificate>,
        progress: &Progress,
    ) -> Result<Order, Trouble> {
        let names: Vec<Identifier> = target.names.iter().cloned().map(Identifier::Dns).collect();
        let mut new = NewOrder::new(&names);
        if !self.config.profile.is_empty() {
            new = new.profile(&self.config.profile);
        }
        let leaf = current.map(|current| CertificateDer::from(current.leaf.as_slice()));
        // RFC 9773 5: only an authority that makes suggestions knows what that means.
        if let Some(leaf) = leaf.as_ref().filter(|_| progress.window.is_some())
            && let Ok(replaced) = CertificateIdentifier::try_from(leaf)
        {
            new = new.replaces(replaced);
        }
        Ok(known.account.new_order(&new).await?)
    }

    /// Shows that the names are ours.
    async fn prove(
        &self,
        known: &Known,
        order: &mut Order,
        target: &Target,
        progress: &mut Progress,
        answers: &mut Vec<Answer>,
    ) -> Result<(), Trouble> {
        self.prepare(known, order, target, progress, answers)
            .await?;
        if target.challenge == ChallengeKind::Dns01 {
            let watcher = Watcher::new(&self.config.dns, &self.config.nameservers);
            for (name, text) in &progress.published {
                watcher.until_text(name, text).await?;
            }
        }
        let mut authorizations = order.authorizations();
        while let Some(next) = authorizations.next().await {
            let mut authorization = next?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let challenge = authorization.challenge(kind(target.challenge));
            // One that an earlier process began is looked at already.
            if let Some(mut challenge) =
                challenge.filter(|one| one.status == ChallengeStatus::Pending)
            {
                challenge.set_ready().await?;
            }
        }
        match order.poll_ready(&self.patience_for_orders()).await {
            Ok(OrderStatus::Invalid) | Err(Error::Api(_)) => {
                Err(Trouble::Refused(why_refused(order, target).await))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Has the answers to all challenges ready.
    async fn prepare(
        &self,
        known: &Known,
        order: &mut Order,
        target: &Target,
        progress: &mut Progress,
        answers: &mut Vec<Answer>,
    ) -> Result<(), Trouble> {
        let mut texts = Vec::new();
        let mut new = false;
        let mut authorizations = order.authorizations();
        while let Some(next) = authorizations.next().await {
            let mut authorization = next?;
            let name = match authorization.identifier().identifier {
                Identifier::Dns(name) => name.clone(),
                other => {
                    return Err(Trouble::Refused(format!(
                        "the authority asks about {other:?}"
                    )));
                }
            };
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                other => {
                    return Err(Trouble::Refused(format!(
                        "{name}: the authorization is {other:?}"
                    )));
                }
            }
            let offered: Vec<String> = authorization.challenges.iter().map(called).collect();
            let Some(challenge) = authorization.challenge(kind(target.challenge)) else {
                let word = target.challenge.word();
                return Err(Trouble::Refused(format!(
                    "the authority does not offer {word} for {name}, but {}",
                    offered.join(", ")
                )));
            };
            let text = jws::key_authorization(&challenge.token, known.authority.key());
            match target.challenge {
                ChallengeKind::Http01 => {
                    answers.push(self.answers.say_token(&challenge.token, &name, text));
                }
                ChallengeKind::TlsAlpn01 => {
                    let digest = jws::authorization_digest(&text);
                    answers.push(self.answers.say_name(&name, digest));
                }
                ChallengeKind::Dns01 => {
                    // RFC 8555 8.4
                    texts.push((format!("_acme-challenge.{name}"), jws::dns_value(&text)));
                }
                ChallengeKind::DnsPersist01 => {
                    let offer = known.authority.offer(&challenge.url);
                    let told = |why| Trouble::Refused(format!("the authority: {name}: {why}"));
                    new |= self.remember(&name, offer.map_err(told)?)?;
                }
            }
        }
        if !texts.is_empty() {
            self.publish(target, progress, texts).await?;
        }
        if new {
            self.stand(target).await?;
        }
        Ok(())
    }

    /// Publishes texts for DNS-01; what was published before a kill is there already.
    async fn publish(
        &self,
        target: &Target,
        progress: &mut Progress,
        texts: Vec<(String, String)>,
    ) -> Result<(), Trouble> {
        let publisher = self.publisher().await?;
        // Those of an earlier order that was not finished.
        let old: Vec<_> = progress
            .published
            .iter()
            .filter(|one| !texts.contains(one))
            .cloned()
            .collect();
        for (name, text) in old {
            publisher
                .remove(&name, DnsRecordType::TXT, DnsRecord::TXT(text))
                .await?;
        }
        // Written down first, so that a kill leaves nothing that is not known.
        progress.published.clone_from(&texts);
        self.state.keep(&target.id, progress)?;
        for (name, text) in texts {
            let record = DnsRecord::TXT(text);
            let ttl = self.config.dns.challenge_ttl;
            publisher
                .add(&name, DnsRecordType::TXT, ttl, record)
                .await?;
        }
        Ok(())
    }

    /// Removes the records of challenges. What cannot be removed now is tried again at the next order.
    async fn unpublish(&self, target: &Target, progress: &mut Progress) {
        if progress.published.is_empty() {
            return;
        }
        let publisher = match self.publisher().await {
            Ok(publisher) => publisher,
            Err(trouble) => {
                tracing::warn!(id = target.id, %trouble, "records of challenges stay published");
                return;
            }
        };
        let mut left = Vec::new();
        for (name, text) in std::mem::take(&mut progress.published) {
            let record = DnsRecord::TXT(text.clone());
            if let Err(error) = publisher.remove(&name, DnsRecordType::TXT, record).await {
                tracing::warn!(id = target.id, name, %error, "the record of a challenge stays published");
                left.push((name, text));
            }
        }
        progress.published = left;
    }

    pub(crate) async fn publisher(&self) -> Result<Publisher, Trouble> {
        let config = self.config.dns.clone();
        match tokio::task::spawn_blocking(move || Publisher::new(&config)).await {
            Ok(publisher) => Ok(publisher?),
            Err(error) => Err(Trouble::Setting(error.to_string())),
        }
    }

    /// Has the certificate made for keyd's key, and fetches it.
    async fn chain(&self, order: &mut Order, target: &Target) -> Result<String, Trouble> {
        if matches!(
            order.state().status,
            OrderStatus::Pending | OrderStatus::Ready
        ) {
            let request = CertificateRequest {
                id: target.id.clone(),
                names: target.names.clone(),
                algorithm: self.config.key,
            };
            let requested = self.keyd.call(TraceId(0), &request).await?;
            order.finalize_csr(&requested.csr).await?;
        }
        if order.state().status == OrderStatus::Valid
            && let Some(chain) = order.certificate().await?
        {
            return Ok(chain);
        }
        Ok(order.poll_certificate(&self.patience_for_orders()).await?)
    }

    fn patience_for_orders(&self) -> RetryPolicy {
        RetryPolicy::new()
            .initial_delay(Duration::from_millis(250))
            .backoff(1.5)
            .timeout(Duration::from_secs(self.config.order_timeout))
    }
}

fn kind(kind: ChallengeKind) -> ChallengeType {
    match kind {
        ChallengeKind::Http01 => ChallengeType::Http01,
        ChallengeKind::TlsAlpn01 => ChallengeType::TlsAlpn01,
        ChallengeKind::Dns01 => ChallengeType::Dns01,
        // No type of its own in the library; the answer to it is that of the others.
        ChallengeKind::DnsPersist01 => ChallengeType::Unknown(kind.word().to_owned()),
    }
}

/// As the protocol calls a challenge that is offered; bounded, as it goes into a state file.
fn called(challenge: &Challenge) -> String {
    match &challenge.r#type {
        ChallengeType::Http01 => "http-01".to_owned(),
        ChallengeType::TlsAlpn01 => "tls-alpn-01".to_owned(),
        ChallengeType::Dns01 => "dns-01".to_owned(),
        ChallengeType::Unknown(word) => word
            .chars()
            .filter(|c| c.is_ascii_graphic())
            .take(40)
            .collect(),
        other => format!("{other:?}"),
    }
}

/// What the authority saw when it looked.
async fn why_refused(order: &mut Order, target: &Target) -> String {
    let mut reasons = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(next) = authorizations.next().await {
        let Ok(mut authorization) = next else {
            continue;
        };
        if authorization.refresh().await.is_err() {
            continue;
        }
        let name = authorization.identifier().to_string();
        let problems = authorization
            .challenges
            .iter()
            .filter_map(|one| one.error.as_ref());
        reasons.extend(problems.map(|problem| format!("{name}: {}", said(problem))));
    }
    let word = target.challenge.word();
    if reasons.is_empty() {
        return format!("the authority refuses the order ({word}), and does not say why");
    }
    format!(
        "the authority does not see {word} answered: {}",
        reasons.join("; ")
    )
}
