//! The witness desk and the shelves of the log: what strangers may send, and what they get.

use peerproof::Node;
use peerproof_log::{SignedCheckpoint, Tile, Tiles, witness};
use peerproof_wire::{HeldFrom, LogReply, LogRequest, Message as _};

use super::stage::{House, PATIENCE, Peer, peer, status};

async fn node(change: impl FnOnce(&mut House)) -> Node {
    let mut house = House::new(&[]);
    house.fill(300, "entry").await;
    change(&mut house);
    let node = house.start().await.unwrap();
    // The folder lives as long as the test.
    std::mem::forget(house);
    node
}

async fn found(peer: &Peer, path: &str) -> Vec<u8> {
    match peer.ask(&LogRequest::Piece(path.into())).await {
        LogReply::Found(bytes) => bytes,
        other => panic!("{path}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pieces_make_proofs_and_no_changed_byte_passes() {
    let node = node(|_| ()).await;
    let reader = Peer::of(&node).await;
    let note = found(&reader, "checkpoint").await;
    let checkpoint = SignedCheckpoint::open_of(&note, &peer(&node).public_key()).unwrap();
    assert_eq!(checkpoint.size(), 300);
    for at in 0..note.len() {
        let mut changed = note.clone();
        changed[at] ^= 1;
        assert!(SignedCheckpoint::open_of(&changed, &checkpoint.signer()).is_err(), "byte {at}");
    }

    let mut tiles = Tiles::new(300);
    let wanted = tiles.wanted(|nodes| nodes.inclusion(7, 300).map(drop)).unwrap();
    let mut pieces: Vec<(Tile, Vec<u8>)> = Vec::new();
    for tile in wanted {
        let path = peerproof_log::Resource::Hashes(tile).to_string();
        pieces.push((tile, found(&reader, &path).await));
    }
    let bundle = Tile::in_tree(0, 0, 300).unwrap();
    let entries = found(&reader, &peerproof_log::Resource::Entries(bundle).to_string()).await;
    let entry = peerproof_log::tiles::open_bundle(bundle, &entries).unwrap()[7];
    let leaf = peerproof_log::leaf_hash(&entry);
    let mut proves = |pieces: &[(Tile, Vec<u8>)]| {
        for (tile, bytes) in pieces {
            tiles.insert(*tile, bytes).unwrap();
        }
        use peerproof_log::Nodes as _;
        let path = tiles.inclusion(7, 300).unwrap();
        peerproof_log::verify_inclusion(&leaf, 7, 300, &path, checkpoint.root()).is_ok()
    };
    assert!(proves(&pieces));
    // Of the leaf's own subtree only its siblings are in the path; all of it is in the root.
    for which in 0..pieces.len() {
        for at in 0..pieces[which].1.len() {
            if pieces[which].0.level() == 0 && at / 32 == 7 {
                continue;
            }
            pieces[which].1[at] ^= 1;
            assert!(!proves(&pieces), "tile {which} byte {at}");
            pieces[which].1[at] ^= 1;
        }
    }
    for path in ["tile/0/002", "tile/0/000.p/0", "../checkpoint", "tile/0/1", "x"] {
        assert_eq!(status(&reader.ask(&LogRequest::Piece(path.into())).await), 404, "{path}");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_keeps_to_its_rules_and_remembers_them_after_a_restart() {
    let mut house = House::new(&[]);
    house.config.log.max_witnessed = 1;
    let node = house.start().await.unwrap();
    let mut first = Peer::of(&node).await;
    first.log.append(&["one", "two"]).unwrap();
    let request = first.log.add_checkpoint(0).unwrap();

    // Every byte of the request matters.
    let other = Peer::of(&node).await;
    assert_eq!(status(&other.add(&request).await), 403, "another peer's log");
    let LogReply::Found(line) = first.add(&request).await else { panic!("not cosigned") };
    let note = [request.checkpoint.clone(), line].concat();
    let note = SignedCheckpoint::open(&note).unwrap();
    witness::cosigned(&note, &peer(&node).public_key()).unwrap();
    assert_eq!(status(&first.add(&request).await), 409, "it was cosigned already");
    assert_eq!(status(&other.add(&other.log.add_checkpoint(0).unwrap()).await), 503, "full");

    // What it saw is on disk.
    node.shutdown().await;
    let node = house.start().await.unwrap();
    let reader = Peer::of(&node).await;
    let seen = reader.ask(&LogRequest::Cosigned(note.signer())).await;
    assert_eq!(seen, LogReply::Found(request.checkpoint.clone()));
    assert_eq!(status(&reader.ask(&LogRequest::Cosigned(peer(&node).public_key())).await), 404);
    assert_eq!(node.client().status().await.log.witnessed, 1);

    // By HTTP the same desk.
    first.log.append(&["three"]).unwrap();
    let next = first.log.add_checkpoint(2).unwrap();
    let client = node.client();
    let stale = client.add_checkpoint(&request.to_bytes()).await.unwrap_err();
    assert_eq!((stale.status, stale.last.unwrap().0), (409, 2));
    let body = next.to_bytes();
    for at in (0..body.len()).step_by(7) {
        let mut changed = body.clone();
        changed[at] ^= 1;
        let refused = client.add_checkpoint(&changed).await.unwrap_err();
        assert!((400..500).contains(&refused.status), "byte {at}: {refused:?}");
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_and_garbage_end_where_they_come_from() {
    let node = node(|_| ()).await;
    let mut stranger = Peer::of(&node).await;
    let whole = LogRequest::Held(HeldFrom { index: 0 }).encode().unwrap();
    for (what, bytes) in [
        ("a frame that is no request", vec![3, 1, 2, 3]),
        ("an unknown field", vec![2, 0x78, 1]),
        ("a length of nothing", vec![0]),
        ("a length beyond any frame", vec![0xff, 0xff, 0xff, 0x7f]),
    ] {
        let mut stream = stranger.stream().await;
        stream.send_raw(&bytes).await;
        let end = tokio::time::timeout(PATIENCE, stream.recv()).await.unwrap();
        assert!(!matches!(end, Ok(Some(_))), "{what}: {end:?}");
    }
    let mut half = stranger.stream().await;
    half.send_raw(&[whole.len() as u8 + 1]).await;
    half.send_raw(&whole).await;
    half.finish().await.unwrap();
    assert!(!matches!(half.recv().await, Ok(Some(_))), "a truncated frame");

    stranger.log.append(&["one"]).unwrap();
    let request = stranger.log.add_checkpoint(0).unwrap();
    let mut refused = 0;
    for _ in 0..40 {
        match stranger.add(&request).await {
            LogReply::Refused(refusal) if refusal.status == 429 => refused += 1,
            _ => {}
        }
    }
    assert!(refused >= 25, "{refused} of 40 were put off");
    let other = Peer::of(&node).await;
    assert!(matches!(other.add(&other.log.add_checkpoint(0).unwrap()).await, LogReply::Found(_)));
    node.shutdown().await;
}
