//! `firewall`: rules that hold at once in a running node, survive it, and are explained.

use serde_json::{Value, json};

use crate::support::{Node, Place, until};

/// The first rule of the running node and how often it decided.
fn first(node: &Node) -> (Value, u64) {
    let line = node.json("/peerproof/firewall")["rules"][0].clone();
    (line["rule"].clone(), line["decided"].as_u64().unwrap_or(0))
}

fn connected(node: &Node) -> usize {
    node.json("/peerproof/status")["peers"].as_u64().unwrap_or(0) as usize
}

#[test]
fn rules_hold_at_once_survive_and_are_explained() {
    let place = Place::new();
    let provider = place.node("provider", &["provide"]);
    let firewall = |words: &[&str]| place.run("provider", &[&["firewall"], words].concat());

    // Somebody who is denied is turned away before its handshake.
    let set = firewall(&["deny", "127.0.0.0/8", "--json"]).json();
    assert_eq!(
        (&set["running"], &set["rules"][0]["rule"]),
        (&json!(true), &json!("deny 127.0.0.0/8"))
    );
    let router = place.router(&provider, &[]);
    until("the rule turns the router away", || (first(&provider).1 > 0).then_some(()));
    assert_eq!(connected(&router), 0);
    let said = firewall(&["test", "127.0.0.9"]);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.stdout.contains("before the handshake, by the rule `deny 127.0.0.0/8`"));

    // The word is taken back, and the router's next try gets in.
    firewall(&["remove", "127.0.0.0/8"]).fine();
    until("the router connects", || (connected(&router) > 0).then_some(()));
    let said = firewall(&["test", "127.0.0.9", "--json"]).json();
    assert_eq!((&said["verdict"], &said["line"]), (&json!("admitted"), &json!(null)));

    // A rule ends what stands.
    let set = firewall(&["deny", "any", "--json"]).json();
    assert!(set["ended"].as_u64() > Some(0), "{set}");
    until("the router is put out", || (connected(&router) == 0).then_some(()));
    let allowed = firewall(&["allow", "127.0.0.1", "--rate", "100/m"]).fine();
    assert!(allowed.contains("the running node judges by them"), "{allowed}");

    // What was set is there without a node, before what is configured.
    provider.stop();
    let configured = ["--set", "firewall.rules=deny 10.0.0.0/8", "firewall", "list", "--json"];
    let listed = place.run("provider", &configured).json();
    let shown: Vec<(&Value, &Value)> =
        listed["rules"].as_array().unwrap().iter().map(|l| (&l["rule"], &l["origin"])).collect();
    assert_eq!(
        shown,
        [
            (&json!("rate 100/m 127.0.0.1"), &json!("command")),
            (&json!("deny any"), &json!("command")),
            (&json!("deny 10.0.0.0/8"), &json!("configuration")),
        ]
    );
    assert_eq!(listed["running"], false);
    let said = firewall(&["remove", "any"]).fine();
    assert!(said.contains("from the next start"), "{said}");

    // Slips are named, and nothing is written.
    firewall(&["deny", "10.0.0.1/8"]).refused(&["was 10.0.0.0/8 meant?"]);
    firewall(&["allow", "any", "--rate", "often"]).refused(&["is no rate"]);
    firewall(&["remove", "192.0.2.1"]).refused(&["no rule about `192.0.2.1`"]);
    let file = place.path("provider/firewall.rules");
    std::fs::write(&file, "deny everybody\n").unwrap();
    firewall(&["list"]).refused(&["firewall.rules, line 1", "names nobody"]);
    let ended = place.try_node("provider", &["provide"]).err().expect("no node without its rules");
    assert!(ended.stderr.contains("firewall.rules, line 1"), "{ended:?}");
}
