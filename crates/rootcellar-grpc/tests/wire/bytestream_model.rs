//! Writes at random, against a model of what has to become of them.

use rootcellar_digest::Digest;
use rootcellar_proto::bytestream::{QueryWriteStatusRequest, WriteRequest};
use rootcellar_store::testing::Seeded;
use tonic::Code;

use crate::server::{SHA256, Server, read_name, write_name};

/// What is known of one upload.
#[derive(Debug, Default)]
struct Model {
    /// The most bytes that an unfinished write left; 0 if there was none, or its content was wrong.
    committed: usize,
    is_stored: bool,
}

impl Model {
    /// What a write of bytes `from..to` of `len` comes to: the committed size, or an error.
    fn write(&mut self, from: usize, to: usize, len: usize, finish: bool, is_right: bool) -> Result<usize, Code> {
        if self.is_stored {
            return Ok(len);
        }
        if from != 0 && from != self.committed {
            return Err(Code::InvalidArgument);
        }
        if from != 0 {
            self.committed = 0;
        }
        if !finish {
            self.committed = self.committed.max(to);
            return Ok(to);
        }
        if to == len && is_right {
            self.is_stored = true;
            return Ok(len);
        }
        Err(Code::InvalidArgument)
    }
}

/// WR-2 to WR-7, WR-13, QW-1 to QW-3: any sequence of whole, partial, wrong and continued writes.
#[tokio::test]
async fn uploads_do_what_the_model_does() {
    let seed = std::env::var("SEED").map_or(0x5eed, |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut random = Seeded::new(seed);
    let server = Server::start().await;
    for round in 0..60 {
        let len = usize::try_from(1 + random.below(if round % 2 == 0 { 2000 } else { 400_000 })).unwrap();
        let right = random.bytes(len);
        let wrong = random.bytes(len);
        let name = write_name("u", Digest::of(SHA256, &right));
        let mut model = Model::default();
        let mut is_right = true;
        for step in 0..12 {
            let mut place = || usize::try_from(random.below(len as u64 + 1)).unwrap();
            let (some, end) = (place(), place());
            let from = [0, model.committed, some][usize::try_from(random.below(3)).unwrap()];
            let finish = random.below(3) == 0;
            let to = if finish && random.below(4) > 0 {
                len
            } else {
                end.max(from)
            };
            if from == 0 && model.committed == 0 {
                is_right = random.below(4) > 0;
            }
            // What is parked cannot be mixed with other content: the model would have to hash.
            let content = if is_right { &right } else { &wrong };
            let message = WriteRequest {
                resource_name: name.clone(),
                write_offset: i64::try_from(from).unwrap(),
                finish_write: finish,
                data: content.slice(from..to),
            };
            let context = format!("round {round} step {step}: {from}..{to} of {len}, finish {finish}");
            let expected = model.write(from, to, len, finish, is_right);
            let found = server.write(vec![message]).await;
            let found = found
                .map(|size| usize::try_from(size).unwrap())
                .map_err(|status| status.code());
            assert_eq!(found, expected, "{context}");
            check(&server, &name, &model, len, &context).await;
        }
        if model.is_stored {
            assert!(server.read(read_name(Digest::of(SHA256, &right))).await.unwrap() == right);
        }
    }
}

async fn check(server: &Server, name: &str, model: &Model, len: usize, context: &str) {
    let request = QueryWriteStatusRequest {
        resource_name: name.to_owned(),
    };
    let found = server.bytes().query_write_status(request).await;
    let found = found.map(tonic::Response::into_inner).map_err(|status| status.code());
    let found = found.map(|reply| (usize::try_from(reply.committed_size).unwrap(), reply.complete));
    let expected = match model {
        Model { is_stored: true, .. } => Ok((len, true)),
        Model { committed: 0, .. } => Err(Code::NotFound),
        Model { committed, .. } => Ok((*committed, false)),
    };
    assert_eq!(found, expected, "{context}");
}
