//! Which auditors may look, and which of them does: the smallest lot.
//!
//! An auditor shows what it draws before it learns anything of the job. A
//! provider cannot steer the lot, since it does not know which auditors this
//! router knows; an auditor cannot, if its VRF key was announced before the job
//! began, so those come first.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use peerproof_identity::PeerId;
use peerproof_identity::vrf::Public;
use peerproof_proof::lottery::Ticket;
use peerproof_wire::{
    AuditReply, AuditRequest, AuditorCheck, AuditorFinding, Case, DrawRequest, LogBody,
    NetworkGroup, Note, Receipt, Signed, VrfDraw,
};
use tokio::task::JoinSet;

use super::{Audits, Question, SEARCH};
use crate::home::random_seed;
use crate::node::directory::Wanted;
use crate::node::incidents::group_of;

/// Auditors that draw.
const MAX_DRAWN: usize = 16;
/// Of one network group, private ones apart.
const MAX_OF_ONE_GROUP: usize = 2;
/// How long a draw may take.
const DRAW: Duration = Duration::from_secs(3);

/// Somebody the lot may fall on.
#[derive(Clone, Copy, Debug)]
struct Announced {
    peer: PeerId,
    vrf: Public,
    known_since: Instant,
    group: NetworkGroup,
}

/// An auditor and its lot.
#[derive(Clone, Debug)]
pub(super) struct Drawn {
    pub(super) peer: PeerId,
    pub(super) group: NetworkGroup,
    ticket: Ticket,
}

impl Drawn {
    /// Whether a verdict carries the draw that was shown before.
    pub(super) fn is_shown_in(&self, draw: Option<&VrfDraw>) -> bool {
        draw.is_some_and(|draw| {
            draw.key == *self.ticket.key() && draw.proof == *self.ticket.proof()
        })
    }
}

impl Audits {
    /// Who looks, in the order of their lots, and why others do not. `asked` had their turn.
    pub(super) async fn draw(
        &self,
        question: &Question,
        asked: &[PeerId],
        widen: bool,
    ) -> (Vec<Drawn>, Vec<String>) {
        let announced = self.announced(question, asked, widen).await;
        let receipt = &question.case.receipt;
        let mut drawing = JoinSet::new();
        for auditor in announced {
            let request = DrawRequest {
                transcript_root: receipt.transcript_root,
                offer_id: receipt.offer_id,
            };
            let (net, receipt) = (self.net.clone(), receipt.clone());
            drawing.spawn(async move {
                let drawn = one_draw(&net, &auditor, request, &receipt).await;
                (auditor, drawn)
            });
        }
        let (mut drawn, mut reasons) = (Vec::new(), Vec::new());
        while let Some(Ok((auditor, result))) = drawing.join_next().await {
            match result {
                Ok(ticket) => {
                    drawn.push(Drawn { peer: auditor.peer, group: auditor.group, ticket });
                }
                Err(Refused::Silent(why)) => reasons.push(format!("{}: {why}", auditor.peer)),
                Err(Refused::False(why)) => {
                    self.note_auditor(auditor.peer, &question.case, AuditorFinding::Undrawn).await;
                    reasons.push(format!("{}: {why}", auditor.peer));
                }
            }
        }
        drawn.sort_by_key(|drawn| {
            (*drawn.ticket.output().as_bytes(), *drawn.ticket.key().as_bytes())
        });
        (drawn, reasons)
    }

    /// Those known before the job began; else those known; else those the network finds.
    async fn announced(
        &self,
        question: &Question,
        asked: &[PeerId],
        widen: bool,
    ) -> Vec<Announced> {
        let wanted = Wanted::Audited(question.case.offer.model_id);
        let known = self.usable(question, asked, self.directory.matching(&wanted)).await;
        let before: Vec<Announced> =
            known.iter().filter(|it| it.known_since < question.begun).copied().collect();
        if !widen && !before.is_empty() {
            return self.few_of_each_group(before);
        }
        if !widen && !known.is_empty() {
            return self.few_of_each_group(known);
        }
        let mut search = self.directory.search(wanted, SEARCH, true);
        let mut found = Vec::new();
        while let Some(auditor) = search.recv().await {
            found.push(auditor);
        }
        let found = self.usable(question, asked, found).await;
        self.few_of_each_group(found)
    }

    async fn usable(
        &self,
        question: &Question,
        asked: &[PeerId],
        known: Vec<(PeerId, crate::node::directory::Known)>,
    ) -> Vec<Announced> {
        let mut usable = Vec::new();
        for (peer, known) in known {
            let out = question.exclude.contains(&peer) || asked.contains(&peer);
            if out || self.own == Some(peer) || self.ledger.auditor(&peer).barred.is_some() {
                continue;
            }
            usable.push(Announced {
                peer,
                vrf: known.announcement.vrf_key,
                known_since: known.key_since,
                group: group_of(&self.net, peer).await,
            });
        }
        usable
    }

    /// Not many of one place, and not many at all; which of them is this router's own chance.
    fn few_of_each_group(&self, mut all: Vec<Announced>) -> Vec<Announced> {
        let chance = random_seed();
        all.sort_by_key(|it| *blake3::keyed_hash(&chance, &it.vrf.as_bytes()[..]).as_bytes());
        let mut of_group: HashMap<NetworkGroup, usize> = HashMap::new();
        all.retain(|it| {
            let count = of_group.entry(it.group).or_default();
            *count += 1;
            it.group == NetworkGroup::Local || *count <= MAX_OF_ONE_GROUP
        });
        all.truncate(MAX_DRAWN);
        all
    }

    /// Notes what was found out about an auditor.
    pub(super) async fn note_auditor(&self, auditor: PeerId, case: &Case, finding: AuditorFinding) {
        let check =
            AuditorCheck { auditor: auditor.public_key(), receipt_id: case.receipt.id(), finding };
        let _ = self.ledger.record(LogBody::Note(Note::AuditorCheck(check))).await;
    }
}

/// Why somebody is not among the drawn.
enum Refused {
    /// It did not answer; that happens.
    Silent(String),
    /// It answered with a draw that does not hold.
    False(String),
}

async fn one_draw(
    net: &peerproof_net::Handle,
    auditor: &Announced,
    request: DrawRequest,
    receipt: &Signed<Receipt>,
) -> Result<Ticket, Refused> {
    let talk = super::talk(net, auditor.peer, AuditRequest::Draw(request), DRAW);
    let reply = match tokio::time::timeout(DRAW, talk).await {
        Ok(reply) => reply.map_err(Refused::Silent)?,
        Err(_) => return Err(Refused::Silent("no draw in time".into())),
    };
    match reply {
        AuditReply::Draw(draw) if draw.key == auditor.vrf => {
            Ticket::verify(&auditor.vrf, &draw.proof, receipt)
                .map_err(|error| Refused::False(format!("its draw does not hold: {error}")))
        }
        AuditReply::Draw(_) => {
            Err(Refused::False("it drew with another key than it announced".into()))
        }
        AuditReply::Failure(failure) => Err(Refused::Silent(failure.message)),
        AuditReply::Verdict(_) => Err(Refused::False("a verdict came in place of a draw".into())),
    }
}
