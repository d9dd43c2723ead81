//! One stream of a job: frames in, frames out, and why it ended.

use peerproof_job::router::{Closed, In, LaneId};
use peerproof_net::{FrameError, FrameReader, FrameStream, FrameWriter};
use peerproof_wire::{Message as _, ProviderFrame, RouterFrame};
use tokio::sync::mpsc;

/// Reads and writes one stream until either side closes it.
pub(super) async fn converse(
    lane: LaneId,
    stream: FrameStream,
    frames: mpsc::Receiver<RouterFrame>,
    inbox: mpsc::Sender<In>,
) {
    let (reader, writer) = stream.split();
    let mut reading = tokio::spawn(read(lane, reader, inbox.clone()));
    tokio::select! {
        closed = write(writer, frames) => {
            if let Some(why) = closed {
                let _ = inbox.send(In::Closed(lane, Closed::Gone(why))).await;
            }
        }
        _ = &mut reading => {}
    }
    reading.abort();
}

async fn read(lane: LaneId, mut reader: FrameReader, inbox: mpsc::Sender<In>) {
    loop {
        let event = match reader.recv().await {
            Ok(Some(frame)) => match ProviderFrame::decode(&frame) {
                Ok(frame) => In::Frame(lane, frame),
                Err(error) => In::Closed(lane, Closed::Garbage(error.to_string())),
            },
            Ok(None) => In::Closed(lane, Closed::Gone("the provider closed the stream".into())),
            Err(
                error @ (FrameError::TooLong { .. } | FrameError::Empty | FrameError::Refused(_)),
            ) => In::Closed(lane, Closed::Garbage(error.to_string())),
            Err(error) => In::Closed(lane, Closed::Gone(error.to_string())),
        };
        let last = matches!(event, In::Closed(..));
        if inbox.send(event).await.is_err() || last {
            return;
        }
    }
}

/// Writes frames until the job closes the lane; gives back why it could not.
async fn write(mut writer: FrameWriter, mut frames: mpsc::Receiver<RouterFrame>) -> Option<String> {
    while let Some(frame) = frames.recv().await {
        let written = match frame.encode() {
            Ok(bytes) => writer.send(&bytes).await.map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = written {
            return Some(why);
        }
    }
    let _ = writer.finish().await;
    None
}
