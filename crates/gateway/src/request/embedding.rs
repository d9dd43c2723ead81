//! The body of `/v1/embeddings`.

use peerproof::client::{JobSpec, Pooling, Verification};
use serde_json::{Map, Value};

use super::fields::{Fields, expected};
use super::{completion, model, options};
use crate::embeddings::Encoding;
use crate::error::ApiError;

/// Most inputs of one request.
const MAX_INPUTS: usize = 2_048;
/// Longest vector that can be asked for.
const MAX_DIMENSIONS: u64 = 1 << 16;

/// A request for embeddings in the network's terms.
#[derive(Debug)]
pub(crate) struct Embed {
    /// One job for each input, in their order.
    pub(crate) jobs: Vec<JobSpec>,
    /// The model as the client named it.
    pub(crate) model: String,
    pub(crate) encoding: Encoding,
    pub(crate) dimensions: Option<u32>,
}

impl Embed {
    /// Parses a body; `default` is how to check when the body does not say.
    ///
    /// # Errors
    /// Status 400, naming the parameter.
    pub(crate) fn parse(body: &[u8], default: &Verification) -> Result<Embed, ApiError> {
        let object: Map<String, Value> = serde_json::from_slice(body).map_err(|error| {
            ApiError::malformed(format!("the body is not a JSON object: {error}"))
        })?;
        let fields = Fields::top(&object);
        let model = model(&fields)?;
        let inputs = completion::prompts(&fields, "input", MAX_INPUTS)?;
        let encoding = match fields.string("encoding_format")? {
            None | Some("float") => Encoding::Float,
            Some("base64") => Encoding::Base64,
            Some(other) => {
                let wanted = expected("float or base64", &Value::from(other));
                return Err(ApiError::invalid("encoding_format", wanted));
            }
        };
        let dimensions = fields.unsigned("dimensions", 1..=MAX_DIMENSIONS)?.map(|n| n as u32);
        let verification = options::verification(&fields, default)?;
        let preference = options::preference(&fields)?;
        let job = |prompt| JobSpec {
            max_tokens: dimensions,
            verification: verification.clone(),
            preference: preference.clone(),
            embed: Some(Pooling::Model),
            ..JobSpec::new(model.clone(), prompt)
        };
        let jobs = inputs.into_iter().map(job).collect();
        Ok(Embed { jobs, model: model.clone(), encoding, dimensions })
    }
}
