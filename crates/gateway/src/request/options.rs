//! The two objects that are this network's own: `verification` and `provider`.
//! Unlike elsewhere, a member that is not known is refused: a misspelt name
//! must not weaken a check or widen a choice.

use peerproof::client::{Level, Mode, Preference, Verification};

use super::fields::Fields;
use crate::error::ApiError;

const MAX_PEERS: usize = 64;
const MAX_PEER_BYTES: usize = 128;
const MAX_OF_N: u64 = 8;

/// `verification: {level, k, n, auditor, on_fail}`.
pub(super) fn verification(
    fields: &Fields<'_>,
    default: &Verification,
) -> Result<Verification, ApiError> {
    let mut wanted = default.clone();
    let Some(object) = fields.object("verification")? else { return Ok(wanted) };
    object.only(&["level", "mode", "k", "n", "auditor", "on_fail"])?;
    wanted.level = match object.string("level")? {
        None => default.level,
        Some("receipt") => Level::Receipt,
        Some("sampled") => Level::Sampled,
        Some("spot") => Level::Spot,
        Some("light") => Level::Light,
        Some("full") => Level::Full,
        Some("k_of_n") => Level::KOfN,
        Some(_) => {
            let message = "one of receipt, sampled, light, spot, full, k_of_n";
            return Err(ApiError::invalid(object.path("level"), message));
        }
    };
    if let Some(mode) = object.string("mode")? {
        wanted.mode = mode.parse().map_err(|why: String| match mode {
            "zk_snark" => ApiError::unsupported(object.path("mode"), why),
            _ => ApiError::invalid(object.path("mode"), why),
        })?;
    }
    if wanted.mode == Mode::FraudProof && wanted.level == Level::KOfN {
        let message = "k_of_n compares answers before they count; its mode is merkle";
        return Err(ApiError::invalid(object.path("mode"), message));
    }
    wanted.k_of_n = k_of_n(&object, wanted.k_of_n)?;
    if let Some(auditor) = object.string("auditor")? {
        wanted.auditor = Some(peer(auditor, object.path("auditor"))?);
    }
    match object.string("on_fail")? {
        None | Some("error") => Ok(wanted),
        Some(_) => Err(ApiError::unsupported(object.path("on_fail"), "only error")),
    }
}

/// The numbers for the level `k_of_n`, whichever level is asked for: a client
/// may send them always.
fn k_of_n(object: &Fields<'_>, default: (u8, u8)) -> Result<(u8, u8), ApiError> {
    let k = object.unsigned("k", 1..=MAX_OF_N)?.map(|k| k as u8);
    let n = object.unsigned("n", 1..=MAX_OF_N)?.map(|n| n as u8);
    let n = n.unwrap_or(default.1.max(k.unwrap_or(0)));
    let k = k.unwrap_or(default.0.min(n));
    if k > n {
        return Err(ApiError::invalid(object.path("k"), format!("{k} of {n} cannot agree")));
    }
    Ok((k, n))
}

/// `provider: {order, only, ignore, allow_fallbacks}`.
pub(super) fn preference(fields: &Fields<'_>) -> Result<Preference, ApiError> {
    let Some(object) = fields.object("provider")? else {
        return Ok(Preference { allow_fallbacks: true, ..Preference::default() });
    };
    object.only(&["order", "only", "ignore", "allow_fallbacks"])?;
    Ok(Preference {
        order: peers(&object, "order")?,
        only: peers(&object, "only")?,
        ignore: peers(&object, "ignore")?,
        allow_fallbacks: object.boolean("allow_fallbacks")?.unwrap_or(true),
    })
}

fn peers(object: &Fields<'_>, name: &str) -> Result<Vec<String>, ApiError> {
    let listed = object.strings(name, MAX_PEERS)?;
    let at = |i: usize| format!("{}[{i}]", object.path(name));
    listed.iter().enumerate().map(|(i, id)| peer(id, at(i))).collect()
}

/// Looks like a peer id; whether it is one is the node's to say.
fn peer(id: &str, at: String) -> Result<String, ApiError> {
    let plausible = !id.is_empty() && id.len() <= MAX_PEER_BYTES;
    if plausible && id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        Ok(id.to_owned())
    } else {
        Err(ApiError::invalid(at, "a peer id is required"))
    }
}
