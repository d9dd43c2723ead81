//! `/v1/embeddings`: texts or token ids in, one vector each out, in the order of the input.
//!
//! Every input is a job of its own, checked as any answer is; a few run at a
//! time, in slots that the request keeps until its end. The integers that were verified become numbers here and nowhere else:
//! each component, divided by 2^22, is exact in 32 bits of floating point.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use peerproof::client::{COMPONENT_BITS, Outcome, components};
use serde_json::{Value, json};

use crate::answer::{Next, Running, admit};
use crate::app::App;
use crate::error::ApiError;
use crate::request::{Embed, MAX_CHOICES};
use crate::routes::json_response;

/// How a vector is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// A list of numbers.
    Float,
    /// 32-bit floats, little-endian, in base64.
    Base64,
}

/// Answers a request whose inputs are already jobs.
pub(crate) async fn respond(app: Arc<App>, asked: Embed) -> Result<Response, ApiError> {
    let (mut data, mut reports) = (Vec::new(), Vec::new());
    let (mut tokens, mut model_id) = (0_u64, None);
    let at_once = asked.jobs.len().min(MAX_CHOICES).min(app.config.max_in_flight);
    let slots = admit(&app, at_once)?;
    let mut jobs = asked.jobs.into_iter();
    loop {
        let group: Vec<_> = jobs.by_ref().take(at_once).collect();
        if group.is_empty() {
            break;
        }
        let slots = Arc::clone(&slots);
        let running = Running::admitted(Arc::clone(&app), slots, group, "input").await?;
        for (text, outcome) in finish(&app, running).await? {
            let vector = components(&text).ok_or_else(ApiError::silent_end)?;
            if let Some(wanted) = asked.dimensions.filter(|wanted| *wanted as usize != vector.len())
            {
                let message = format!("the model has {} of them, not {wanted}", vector.len());
                return Err(ApiError::invalid("dimensions", message));
            }
            tokens += u64::from(outcome.prompt_tokens);
            let embedding = write(&vector, asked.encoding);
            data.push(
                json!({ "object": "embedding", "index": data.len(), "embedding": embedding }),
            );
            model_id.get_or_insert_with(|| outcome.model_id.clone());
            reports.push(report(&app, &outcome));
        }
    }
    let body = json!({
        "object": "list",
        "data": data,
        "model": asked.model,
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
        "peerproof": { "model_id": model_id, "answers": reports },
    });
    Ok(json_response(StatusCode::OK, &body))
}

/// Texts and outcomes of a group, in its order.
async fn finish(app: &App, mut running: Running) -> Result<Vec<(String, Outcome)>, ApiError> {
    let patience = app.config.keep_alive;
    let mut texts = vec![String::new(); running.choices()];
    let mut outcomes: Vec<Option<Outcome>> = vec![None; running.choices()];
    while !running.finished() {
        match running.next(patience).await {
            Next::Text(index, piece, _) => texts[index].push_str(&piece),
            Next::Done(index, outcome, _) => outcomes[index] = Some(*outcome),
            Next::Failed(error) => return Err(error),
            Next::Reading(..) | Next::Started(_) | Next::Silence => {}
        }
    }
    Ok(texts.into_iter().zip(outcomes.into_iter().flatten()).collect())
}

fn report(app: &App, outcome: &Outcome) -> Value {
    let mut report = json!({
        "job_id": outcome.job_id,
        "receipt_id": outcome.receipt_id,
        "verification": outcome.verification,
    });
    if app.config.exposes_peers() {
        report["provider"] = json!(outcome.provider);
    } else {
        // It names who recomputed.
        report["verification"]["detail"] = json!("");
    }
    report
}

fn write(vector: &[i32], encoding: Encoding) -> Value {
    let number = |component: &i32| *component as f32 / (1_u32 << COMPONENT_BITS) as f32;
    match encoding {
        Encoding::Float => vector.iter().map(number).collect::<Vec<f32>>().into(),
        Encoding::Base64 => {
            let bytes: Vec<u8> =
                vector.iter().flat_map(|component| number(component).to_le_bytes()).collect();
            BASE64_STANDARD.encode(bytes).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_exact_as_numbers() {
        let vector = [1 << COMPONENT_BITS, -(1 << 21), 1, 0];
        let expected = json!([1.0, -0.5, 2.384_185_791_015_625e-7, 0.0]);
        assert_eq!(write(&vector, Encoding::Float), expected);
        // 1.0 and -0.5, little-endian.
        assert_eq!(write(&vector[..2], Encoding::Base64), json!("AACAPwAAAL8="));
    }
}
