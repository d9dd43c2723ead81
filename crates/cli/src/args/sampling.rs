//! How `ask` has tokens chosen and reported: flags, and the members of a request they become.
//!
//! Ranges are those of the API, and are checked here so that a mistake is a usage error. What a
//! rule does is in `docs/spec/arithmetic.md`; nothing is rounded here.

use clap::Args;
use serde_json::{Map, Value, json};

#[derive(Debug, Args)]
#[command(next_help_heading = "Choosing tokens")]
pub(crate) struct SamplingArgs {
    /// From 0, which picks the most likely token every time, to 2.
    #[arg(long, default_value_t = 0.0, value_parser = from_0_to_2)]
    pub(crate) temperature: f64,
    /// Keep this many of the most likely tokens, up to 16777216; 0 is off.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1 << 24))]
    pub(crate) top_k: u32,
    /// Keep the most likely tokens that make up this mass, 0 to 1; 1 is off.
    #[arg(long, default_value_t = 1.0, value_parser = share)]
    pub(crate) top_p: f64,
    /// Keep tokens at least this times as likely as the likeliest, 0 to 1; 0 is off.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub(crate) min_p: f64,
    /// Makes tokens of prompt and answer less likely: above 0, at most 16; 1 is off.
    #[arg(long, default_value_t = 1.0, value_parser = repetition)]
    pub(crate) repetition_penalty: f64,
    /// Taken once from the logit of a token the answer has already, -2 to 2; 0 is off.
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true, value_parser = from_minus_2_to_2)]
    pub(crate) presence_penalty: f64,
    /// Taken for each time the answer has a token already, -2 to 2; 0 is off.
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true, value_parser = from_minus_2_to_2)]
    pub(crate) frequency_penalty: f64,
    /// Added to the logit of a token, -100 to 100, e.g. 504=-100; may be given up to 300 times.
    #[arg(long, value_name = "TOKEN=NUMBER", value_parser = bias)]
    pub(crate) logit_bias: Vec<(u32, f64)>,
    /// A whole number of 64 bits that makes a sampled answer reproducible.
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) seed: Option<i64>,
    /// Ends the answer before this text, 1 to 256 bytes; may be given up to 16 times.
    #[arg(long)]
    pub(crate) stop: Vec<String>,
    /// Most tokens of the answer.
    #[arg(long)]
    pub(crate) max_tokens: Option<u32>,
    /// Answers to the question, 1 to 8, each with a receipt of its own.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    pub(crate) n: u32,
    /// Also print how likely each token was, beside this many of the likeliest, 0 to 20.
    #[arg(long, value_name = "COUNT", num_args = 0..=1, default_missing_value = "0",
          require_equals = true, value_parser = clap::value_parser!(u32).range(..=20))]
    pub(crate) logprobs: Option<u32>,
    /// File with a JSON schema that the answer is held to; the model is not told it.
    #[arg(long, value_name = "FILE", value_parser = schema)]
    pub(crate) json_schema: Option<Value>,
}

impl SamplingArgs {
    /// Adds what was asked for to a request; what is off is left out.
    pub(crate) fn add_to(&self, request: &mut Map<String, Value>) {
        let mut add = |name: &str, value: Value| request.insert(name.into(), value);
        add("temperature", json!(self.temperature));
        add("top_p", json!(self.top_p));
        let rules = [
            ("top_k", json!(self.top_k), self.top_k != 0),
            ("min_p", json!(self.min_p), self.min_p != 0.0),
            ("repetition_penalty", json!(self.repetition_penalty), self.repetition_penalty != 1.0),
            ("presence_penalty", json!(self.presence_penalty), self.presence_penalty != 0.0),
            ("frequency_penalty", json!(self.frequency_penalty), self.frequency_penalty != 0.0),
            ("stop", json!(self.stop), !self.stop.is_empty()),
            ("seed", json!(self.seed), self.seed.is_some()),
            ("max_tokens", json!(self.max_tokens), self.max_tokens.is_some()),
            ("n", json!(self.n), self.n != 1),
            ("logprobs", json!(true), self.logprobs.is_some()),
            ("top_logprobs", json!(self.logprobs), self.logprobs.is_some()),
        ];
        for (name, value, is_on) in rules {
            if is_on {
                add(name, value);
            }
        }
        if let Some(schema) = &self.json_schema {
            let named = json!({ "name": "answer", "schema": schema, "strict": true });
            add("response_format", json!({ "type": "json_schema", "json_schema": named }));
        }
        if !self.logit_bias.is_empty() {
            let biases = self.logit_bias.iter();
            let biases = biases.map(|(token, bias)| (token.to_string(), json!(bias)));
            add("logit_bias", Value::Object(biases.collect()));
        }
    }
}

fn from_0_to_2(text: &str) -> Result<f64, String> {
    in_range(text, 0.0, 2.0)
}

fn from_minus_2_to_2(text: &str) -> Result<f64, String> {
    in_range(text, -2.0, 2.0)
}

fn share(text: &str) -> Result<f64, String> {
    in_range(text, 0.0, 1.0)
}

fn repetition(text: &str) -> Result<f64, String> {
    match in_range(text, 0.0, 16.0)? {
        0.0 => Err("expected more than 0, got 0".into()),
        penalty => Ok(penalty),
    }
}

/// Whether it is a schema is the node's to say.
fn schema(path: &str) -> Result<Value, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| format!("not JSON: {error}"))
}

fn bias(text: &str) -> Result<(u32, f64), String> {
    let (token, bias) = text.split_once('=').ok_or("expected TOKEN=NUMBER, e.g. 504=-100")?;
    let token = token.parse().map_err(|_| format!("expected a token id, got {token:?}"))?;
    Ok((token, in_range(bias, -100.0, 100.0)?))
}

fn in_range(text: &str, low: f64, high: f64) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("expected a number from {low} to {high}"))?;
    if (low..=high).contains(&value) {
        Ok(value)
    } else {
        Err(format!("expected {low} to {high}, got {value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        sampling: SamplingArgs,
    }

    fn request(flags: &[&str]) -> Result<Value, clap::Error> {
        let flags = Flags::try_parse_from(std::iter::once(&"ask").chain(flags))?;
        let mut request = Map::new();
        flags.sampling.add_to(&mut request);
        Ok(Value::Object(request))
    }

    fn asks(flags: &[&str]) -> Value {
        request(flags).expect("flags that are right")
    }

    #[test]
    fn without_flags_an_answer_is_greedy() {
        assert_eq!(asks(&[]), json!({"temperature": 0.0, "top_p": 1.0}));
    }

    #[test]
    fn every_flag_becomes_its_parameter() {
        let flags = [
            "--temperature=0.7",
            "--top-k=40",
            "--top-p=0.9",
            "--min-p=0.05",
            "--repetition-penalty=1.1",
            "--presence-penalty",
            "-0.5",
            "--frequency-penalty=0.5",
            "--logit-bias=504=-100",
            "--logit-bias=7=2.5",
            "--seed",
            "-3",
            "--stop=a",
            "--stop=b",
            "--max-tokens=9",
            "--n=2",
            "--logprobs=3",
        ];
        let wanted = json!({
            "temperature": 0.7, "top_k": 40, "top_p": 0.9, "min_p": 0.05,
            "repetition_penalty": 1.1, "presence_penalty": -0.5, "frequency_penalty": 0.5,
            "logit_bias": {"504": -100.0, "7": 2.5}, "seed": -3, "stop": ["a", "b"],
            "max_tokens": 9, "n": 2, "logprobs": true, "top_logprobs": 3,
        });
        assert_eq!(asks(&flags), wanted);
        let bare = asks(&["--logprobs"]);
        assert_eq!((&bare["logprobs"], &bare["top_logprobs"]), (&json!(true), &json!(0)));
    }

    #[test]
    fn a_schema_is_read_from_its_file() {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        for (path, fault) in [("/nowhere/schema.json", "No such file"), (manifest, "not JSON")] {
            let error = request(&[&format!("--json-schema={path}")]).expect_err(fault);
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(fault), "{error}");
        }
        let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/proof/transcript.json");
        let asked = asks(&[&format!("--json-schema={vectors}")]);
        let format = &asked["response_format"];
        assert_eq!(format["type"], "json_schema");
        assert!(format["json_schema"]["schema"]["rows"].is_array());
    }

    #[test]
    fn a_value_out_of_range_is_a_usage_error() {
        for flag in [
            "--temperature=2.1",
            "--temperature=-1",
            "--temperature=hot",
            "--top-p=1.01",
            "--min-p=-0.1",
            "--top-k=16777217",
            "--repetition-penalty=0",
            "--repetition-penalty=16.1",
            "--presence-penalty=2.5",
            "--frequency-penalty=-2.5",
            "--logit-bias=504",
            "--logit-bias=the=1",
            "--logit-bias=5=101",
            "--seed=1.5",
            "--n=0",
            "--n=9",
            "--logprobs=21",
        ] {
            assert_eq!(request(&[flag]).expect_err(flag).exit_code(), 2, "{flag}");
        }
    }
}
