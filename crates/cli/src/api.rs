//! The HTTP API of a node that runs already, as this program's own commands use it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use peerproof::client::{Outcome, PeerStatus};
use peerproof::home::Home;
use serde_json::{Value, json};

use crate::args::{AskArgs, Place};

const CONNECT: Duration = Duration::from_secs(2);
/// A node says how it is at once; what is silent for so long is no node.
const STATUS: Duration = Duration::from_secs(5);
/// Longer than any job's deadline.
const WHOLE_CALL: Duration = Duration::from_secs(3700);

/// A running node.
pub(crate) struct Api {
    url: String,
    agent: ureq::Agent,
    /// What the `authorization` header says; empty without a key.
    authorization: String,
}

/// What a streamed answer yields, by the number of its choice.
pub(crate) enum Piece {
    Text(usize, String),
    /// What happens before there is text, for a person.
    Meanwhile(String),
    /// How likely tokens were, as the API writes it.
    Likely(usize, Vec<Value>),
    Done(usize, Box<Value>),
}

impl Api {
    pub(crate) fn at(url: &str) -> Api {
        let agent = ureq::Agent::config_builder()
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(WHOLE_CALL))
            .http_status_as_error(false)
            .build()
            .into();
        let url = url.trim_end_matches('/').to_owned();
        Api { url, agent, authorization: String::new() }
    }

    /// The same node, called with the key in this file; no file, no key.
    pub(crate) fn with_key_file(mut self, file: &str) -> anyhow::Result<Api> {
        if !file.is_empty() {
            let key = std::fs::read_to_string(file).with_context(|| file.to_owned())?;
            self.authorization = format!("Bearer {}", key.trim());
        }
        Ok(self)
    }

    /// The node that runs in this home, if one does. The key is for a node alone, and whoever
    /// listens where a node once did need not be one: health is asked without it.
    pub(crate) fn of_running_node(place: &Place) -> anyhow::Result<Option<Api>> {
        let Some(url) = published_url(&place.home()?) else { return Ok(None) };
        let api = Api::at(&url);
        if !api.json("/health").is_ok_and(|health| health["status"] == "ok") {
            return Ok(None);
        }
        api.with_key_file(&place.config(Vec::new())?.api.key_file).map(Some)
    }

    pub(crate) fn require_running_node(place: &Place) -> anyhow::Result<Api> {
        Api::of_running_node(place)?
            .context("no node is running in this home; start one with: peerproof up")
    }

    pub(crate) fn json(&self, path: &str) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.url);
        let mut request = self.agent.get(&url);
        if !self.authorization.is_empty() {
            request = request.header("authorization", &self.authorization);
        }
        let request = request.config().timeout_global(Some(STATUS)).build();
        let mut response = request.call().with_context(|| url.clone())?;
        if !response.status().is_success() {
            bail!("{url}: status {}", response.status());
        }
        let text = response.body_mut().read_to_string()?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Posts a JSON object and gives back what comes.
    pub(crate) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.url);
        let mut request = self.agent.post(&url).header("content-type", "application/json");
        if !self.authorization.is_empty() {
            request = request.header("authorization", &self.authorization);
        }
        let mut response = request.send(body.to_string()).with_context(|| url.clone())?;
        let text = response.body_mut().read_to_string()?;
        if !response.status().is_success() {
            bail!("{}", message(&text));
        }
        Ok(serde_json::from_str(&text)?)
    }

    pub(crate) fn peers(&self) -> anyhow::Result<Vec<PeerStatus>> {
        Ok(serde_json::from_value(self.json("/peerproof/peers")?)?)
    }

    /// Asks and hands out the answer piece by piece.
    pub(crate) fn ask(
        &self,
        request: &Value,
        on_piece: &mut dyn FnMut(Piece) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let path = if request["prompt"].is_string() { "completions" } else { "chat/completions" };
        let url = format!("{}/v1/{path}", self.url);
        let mut response = self
            .agent
            .post(&url)
            .header("content-type", "application/json")
            .header("authorization", &self.authorization)
            .send(request.to_string())
            .with_context(|| url.clone())?;
        if !response.status().is_success() {
            let text = response.body_mut().read_to_string().unwrap_or_default();
            bail!("{}", message(&text));
        }
        for line in BufReader::new(response.into_body().into_reader()).lines() {
            let line = line.context("the answer broke off")?;
            if let Some(reading) = line.strip_prefix(": reading ") {
                on_piece(Piece::Meanwhile(format!("reading {reading}")))?;
            }
            let Some(data) = line.strip_prefix("data: ") else { continue };
            if data == "[DONE]" {
                return Ok(());
            }
            let chunk: Value = serde_json::from_str(data)?;
            if chunk.get("error").is_some() {
                bail!("{}", message(data));
            }
            let choice = &chunk["choices"][0];
            let index = choice["index"].as_u64().unwrap_or(0) as usize;
            let text = choice["delta"]["content"].as_str().or(choice["text"].as_str());
            if let Some(text) = text {
                on_piece(Piece::Text(index, text.to_owned()))?;
            }
            if let Some(tokens) = choice["logprobs"]["content"].as_array() {
                on_piece(Piece::Likely(index, tokens.clone()))?;
            }
            if chunk["peerproof"].is_object() {
                on_piece(Piece::Done(index, Box::new(chunk["peerproof"].clone())))?;
            }
        }
        bail!("the answer broke off without an end");
    }
}

fn published_url(home: &Home) -> Option<String> {
    let file = std::fs::read(home.api_file()).ok()?;
    let published = serde_json::from_slice::<Value>(&file).ok()?;
    let process = format!("/proc/{}", published["pid"].as_u64()?);
    let alive = Path::new(&process).exists() || !Path::new("/proc/self").exists();
    alive.then(|| published["url"].as_str().map(str::to_owned))?
}

fn message(body: &str) -> String {
    let error = serde_json::from_str::<Value>(body).ok();
    let error = error.and_then(|e| e["error"]["message"].as_str().map(str::to_owned));
    error.unwrap_or_else(|| body.chars().take(500).collect())
}

/// The request that the flags of `ask` stand for, as the API takes it.
pub(crate) fn request(args: &AskArgs, prompt: &str) -> Value {
    let mut request = json!({
        "model": args.model,
        "stream": true,
        "verification": { "k": args.agree.0, "n": args.agree.1 },
    });
    if args.text {
        request["prompt"] = json!(prompt);
    } else {
        let system = args.system.as_ref().map(|s| json!({ "role": "system", "content": s }));
        let user = json!({ "role": "user", "content": prompt });
        request["messages"] = system.into_iter().chain([user]).collect();
    }
    if let Value::Object(request) = &mut request {
        args.sampling.add_to(request);
    }
    if let Some(level) = args.verify {
        request["verification"]["level"] = json!(level);
    }
    if let Some(mode) = args.mode {
        request["verification"]["mode"] = json!(mode);
    }
    if let Some(auditor) = &args.auditor {
        request["verification"]["auditor"] = json!(auditor);
    }
    if !args.provider.is_empty() {
        request["provider"] = json!({ "only": args.provider });
    }
    request
}

/// The line after an answer: provider, model, how it was verified, reputation, times.
pub(crate) fn summary(outcome: &Outcome) -> String {
    format!(
        "{} · {} · {} · check {} ms · reputation {} · first token {} ms · {} ms in all",
        short(&outcome.provider),
        outcome.model,
        outcome.verification.detail,
        outcome.verification.check_ms,
        outcome.reputation,
        outcome.first_token_ms,
        outcome.total_ms,
    )
}

/// The end of a peer id, which is where ids differ.
pub(crate) fn short(peer: &str) -> &str {
    peer.len().checked_sub(8).and_then(|at| peer.get(at..)).unwrap_or(peer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        ask: AskArgs,
    }

    fn asked(flags: &[&str]) -> Value {
        let line = Line::try_parse_from(["ask", "Once"].iter().chain(flags));
        request(&line.expect("flags that are right").ask, "Once")
    }

    #[test]
    fn a_mode_is_asked_for_by_its_name_or_refused_by_it() {
        assert!(asked(&[])["verification"]["mode"].is_null());
        assert_eq!(asked(&["--mode=fraud_proof"])["verification"]["mode"], "fraud_proof");
        assert_eq!(asked(&["--mode=merkle"])["verification"]["mode"], "merkle");
        for (mode, wanted) in
            [("zk_snark", "zk_snark is not offered"), ("trust", "expected merkle")]
        {
            let flag = format!("--mode={mode}");
            let error = Line::try_parse_from(["ask", "Once", &flag]).expect_err("it is refused");
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }

    #[test]
    fn a_prompt_is_a_message_or_a_text() {
        let chat = asked(&["--system=Be brief."]);
        assert_eq!(chat["messages"][0]["content"], "Be brief.");
        assert_eq!(chat["messages"][1], json!({ "role": "user", "content": "Once" }));
        assert!(chat["prompt"].is_null());
        let text = asked(&["--text"]);
        assert_eq!((&text["prompt"], text["messages"].is_null()), (&json!("Once"), true));
        assert!(Line::try_parse_from(["ask", "Once", "--text", "--system=Be brief."]).is_err());
    }
}
