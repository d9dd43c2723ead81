//! What the golden prompts are cut from: texts of several kinds and scripts,
//! and how the tokens of each prompt's answer are chosen.

use peerproof_wire::Sampling;

const STORY: &str = "The lighthouse keeper had not spoken to anyone for eleven days when the \
    letter came. It was addressed in a hand he did not know, and the stamp showed a bird that \
    does not live on this coast. He put it on the table, made tea, and watched the steam climb \
    the window. Outside, the tide was turning. He had learned to hear it: a change of breath, \
    nothing more. By the time the cup was empty he had decided to open the letter, and by the \
    time the lamp was lit he had decided against it. In the morning there was a second letter, \
    and under it a small box tied with blue string, and under the box";

const RECIPE: &str = "Bread for two days\n\n1. Mix 500 g of flour, 350 g of water, 10 g of salt \
    and 3 g of yeast.\n2. Wait for 20 minutes, then fold the dough four times.\n3. Leave it in \
    the cold overnight.\n4. Heat the oven to 240 degrees.\n5. ";

const CODE: &str = "/// The number of binary digits of `n`, 0 for 0.\nfn bits(mut n: u64) -> u32 \
    {\n    let mut count = 0;\n    while n > 0 {\n        n >>= 1;\n        count += 1;\n    }\n    \
    count\n}\n\n#[test]\nfn bits_are_counted() {\n    assert_eq!(bits(0), 0);\n    assert_eq!(";

const GERMAN: &str = "Der Fluss war über Nacht gestiegen. Wo gestern noch Wiesen lagen, standen \
    die Bäume bis zur Brust im Wasser, und die Kühe drängten sich auf dem Damm. Der Fährmann \
    zählte die Pfähle, die noch zu sehen waren, und sagte:";

const FRENCH: &str = "Ma grand-mère gardait ses clés dans une boîte à thé. Chaque été, elle nous \
    laissait en choisir une, et nous cherchions toute la journée la porte qui";

const NUMBERS: &str = "year,rain,days\n2001,612.5,143\n2002,598.0,139\n2003,441.7,112\n2004,655.2,\
    151\n2005,630.9,147\n2006,";

const SCRIPTS: &str = "Hello, Привет, Γειά σου, 你好, こんにちは, 안녕하세요, नमस्ते, שלום 👋🏽 — one \
    greeting in many";

const QUESTION: &str = "Question: Why does ice float on water, and what would be different in a \
    lake if it did not?\nAnswer:";

const LETTER: &str = "Dear neighbour,\n\nthank you for looking after the cat while we were away. \
    We found her asleep on the piano, which is where we had left her. There is one thing we \
    wanted to ask you about: since we came home, she has been answering to a different name, and ";

const LIST: &str = "Ten things to see from a slow train: a heron,";

/// A prompt in the making.
#[derive(Clone)]
pub(crate) struct Cut {
    /// What it is cut from.
    pub(crate) text: &'static str,
    /// How many tokens of it are read.
    pub(crate) tokens: usize,
    /// How its answer is drawn.
    pub(crate) sampling: Sampling,
}

/// Text, tokens, temperature, top-k and top-p. Half of them are greedy; among the
/// others is every combination of the parameters.
const CUTS: [(&str, usize, f64, u32, f64); 20] = [
    (STORY, 1, 0.0, 0, 1.0),
    (CODE, 33, 0.0, 0, 1.0),
    (RECIPE, 21, 0.7, 0, 1.0),
    (SCRIPTS, 29, 1.0, 40, 0.95),
    (GERMAN, 64, 0.0, 0, 1.0),
    (NUMBERS, 48, 0.0, 0, 1.0),
    (STORY, 120, 0.0, 0, 1.0),
    (STORY, 2, 1.0, 0, 1.0),
    (FRENCH, 32, 0.0, 0, 1.0),
    (QUESTION, 24, 0.8, 40, 1.0),
    (LETTER, 47, 1.0, 0, 0.9),
    (LIST, 11, 0.0, 0, 1.0),
    (STORY, 17, 1.3, 100, 0.8),
    (SCRIPTS, 16, 0.0, 0, 1.0),
    (LETTER, 3, 0.5, 5, 1.0),
    (CODE, 80, 0.3, 0, 0.99),
    (STORY, 100, 0.0, 0, 1.0),
    (GERMAN, 5, 2.0, 0, 0.5),
    (RECIPE, 7, 0.0, 0, 1.0),
    (NUMBERS, 13, 1.0, 1000, 0.999),
];

/// The golden prompts.
pub(crate) fn cuts() -> impl Iterator<Item = Cut> {
    let q16 = |value: f64| (value * 65_536.0).round() as u32;
    CUTS.iter().map(move |&(text, tokens, temperature, top_k, top_p)| Cut {
        text,
        tokens,
        sampling: Sampling {
            temperature_q16: q16(temperature),
            top_k,
            top_p_q16: q16(top_p),
            ..Sampling::GREEDY
        },
    })
}
