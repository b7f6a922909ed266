//! SHA-256, two contents in turns where the processor gains by that.
//!
//! Within one content each step waits for the one before, so a processor with instructions for SHA-256 idles half of the time. Two
//! contents fill that:
//!
//! ```text
//!   each:         content 0 ──┐        ┌── content 2 ── content 3          a lane takes the next one when it is free
//!                             ├─ two ──┤
//!                 content 1 ──┴────────┘
//!   update_both:  one piece of each of two contents that arrive
//! ```

#[cfg(target_arch = "x86_64")]
mod x86_64;

use sha2::block_api::compress256;

const BLOCK_BYTES: usize = 64;
const INITIAL: State = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

pub(crate) type Hash = [u8; 32];
type Block = [u8; BLOCK_BYTES];
type State = [u32; 8];

/// The hash of each of these contents, in their order.
pub(crate) fn each(contents: &[&[u8]]) -> Vec<Hash> {
    let mut hashes = vec![[0; 32]; contents.len()];
    let mut waiting = contents.iter().zip(&mut hashes);
    let mut next = || waiting.next().map(|(content, hash)| Lane::new(content, hash));
    let mut lanes = [next(), next()];
    loop {
        match &mut lanes {
            [Some(one), Some(other)] => Lane::advance_both(one, other),
            [Some(alone), None] | [None, Some(alone)] => alone.advance(),
            [None, None] => return hashes,
        }
        for lane in &mut lanes {
            if let Some(done) = lane.take_if(|lane| lane.blocks().is_empty()) {
                *done.hash = to_bytes(done.state);
                *lane = next();
            }
        }
    }
}

/// A content that is there as a whole, on its way through the compression.
struct Lane<'a> {
    state: State,
    whole_blocks: &'a [Block],
    last: Last,
    hash: &'a mut Hash,
}

impl<'a> Lane<'a> {
    fn new(content: &'a [u8], hash: &'a mut Hash) -> Self {
        let (whole_blocks, rest) = content.as_chunks();
        Self {
            state: INITIAL,
            whole_blocks,
            last: Last::new(rest, content.len() as u64),
            hash,
        }
    }

    /// What comes next; nothing if that was all.
    fn blocks(&self) -> &[Block] {
        match self.whole_blocks {
            [] => self.last.blocks(),
            blocks => blocks,
        }
    }

    /// Takes as many blocks as both have ready.
    fn advance_both(one: &mut Self, other: &mut Self) {
        let count = one.blocks().len().min(other.blocks().len());
        let (mut states, blocks) = ([one.state, other.state], [one.blocks(), other.blocks()]);
        compress_both(&mut states, blocks.map(|blocks| &blocks[..count]));
        [one.state, other.state] = states;
        one.pass(count);
        other.pass(count);
    }

    fn advance(&mut self) {
        let mut state = self.state;
        compress256(&mut state, self.blocks());
        self.state = state;
        self.pass(self.blocks().len());
    }

    fn pass(&mut self, count: usize) {
        match self.whole_blocks {
            [] => self.last.pass(count),
            blocks => self.whole_blocks = &blocks[count..],
        }
    }
}

/// What comes behind all whole blocks: the rest of the content, and how long it was (FIPS 180-4, 5.1.1). One block, or two.
struct Last {
    blocks: [Block; 2],
    begin: usize,
    end: usize,
}

impl Last {
    fn new(rest: &[u8], len: u64) -> Self {
        const LEN_AT: usize = BLOCK_BYTES - size_of::<u64>();
        let mut blocks = [[0; BLOCK_BYTES]; 2];
        blocks[0][..rest.len()].copy_from_slice(rest);
        blocks[0][rest.len()] = 0x80;
        let end = if rest.len() < LEN_AT { 1 } else { 2 };
        // In bits; no content is so long that some of them were lost.
        blocks[end - 1][LEN_AT..].copy_from_slice(&(len << 3).to_be_bytes());
        Self { blocks, begin: 0, end }
    }

    fn blocks(&self) -> &[Block] {
        &self.blocks[self.begin..self.end]
    }

    fn pass(&mut self, count: usize) {
        self.begin += count;
    }
}

/// SHA-256 of content that arrives in pieces.
#[derive(Clone)]
pub(crate) struct Sha256 {
    state: State,
    /// What does not fill a block yet, at its front.
    begun: Block,
    len: u64,
}

impl Default for Sha256 {
    fn default() -> Self {
        Self {
            state: INITIAL,
            begun: [0; BLOCK_BYTES],
            len: 0,
        }
    }
}

impl Sha256 {
    pub(crate) fn update(&mut self, content: &[u8]) {
        let (blocks, rest) = self.complete_block(content).as_chunks();
        compress256(&mut self.state, blocks);
        self.len += blocks.as_flattened().len() as u64;
        self.begin_block(rest);
    }

    /// Adds a piece to each of two contents, as far as possible in turns.
    pub(crate) fn update_both([one, other]: [&mut Self; 2], contents: [&[u8]; 2]) {
        let contents = [one.complete_block(contents[0]), other.complete_block(contents[1])];
        let [(blocks, _), (others, _)] = contents.map(<[u8]>::as_chunks);
        let count = blocks.len().min(others.len());
        let mut states = [one.state, other.state];
        compress_both(&mut states, [&blocks[..count], &others[..count]]);
        [one.state, other.state] = states;
        let bytes = count * BLOCK_BYTES;
        for (content, it) in contents.into_iter().zip([one, other]) {
            it.len += bytes as u64;
            it.update(&content[bytes..]);
        }
    }

    pub(crate) fn finish(mut self) -> Hash {
        let last = Last::new(&self.begun[..self.begun_bytes()], self.len);
        compress256(&mut self.state, last.blocks());
        to_bytes(self.state)
    }

    fn begun_bytes(&self) -> usize {
        usize::try_from(self.len % BLOCK_BYTES as u64).expect("less than a block")
    }

    /// Fills the block that was begun, and returns what is left. If there is no more content than that takes, some of it may still be missing.
    fn complete_block<'a>(&mut self, content: &'a [u8]) -> &'a [u8] {
        let begun = self.begun_bytes();
        if begun == 0 {
            return content;
        }
        let (head, rest) = content.split_at(content.len().min(BLOCK_BYTES - begun));
        self.begun[begun..begun + head.len()].copy_from_slice(head);
        self.len += head.len() as u64;
        if self.begun_bytes() == 0 {
            compress256(&mut self.state, &[self.begun]);
        }
        rest
    }

    /// Keeps what does not fill a block. It is empty if one was begun before.
    fn begin_block(&mut self, rest: &[u8]) {
        self.begun[..rest.len()].copy_from_slice(rest);
        self.len += rest.len() as u64;
    }
}

/// Whether two contents in turns take less time than one after the other.
pub(crate) fn gains_in_turns() -> bool {
    #[cfg(target_arch = "x86_64")]
    return x86_64::is_possible();
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Adds as many blocks to each of two states.
fn compress_both(states: &mut [State; 2], blocks: [&[Block]; 2]) {
    assert_eq!(blocks[0].len(), blocks[1].len(), "lanes go side by side");
    #[cfg(target_arch = "x86_64")]
    if x86_64::compress_both(states, blocks) {
        return;
    }
    for (state, blocks) in states.iter_mut().zip(blocks) {
        compress256(state, blocks);
    }
}

fn to_bytes(state: State) -> Hash {
    let mut hash = [0; 32];
    for (bytes, word) in hash.as_chunks_mut().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    hash
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use sha2::Digest as _;

    use super::*;

    fn expected(content: &[u8]) -> Hash {
        sha2::Sha256::digest(content).into()
    }

    /// Contents with lengths around those at which the last blocks become more.
    fn content() -> impl Strategy<Value = Vec<u8>> {
        let len = prop_oneof![0..200_usize, 0..3000_usize];
        (any::<u8>(), len).prop_map(|(first, len)| (0..=250_u8).cycle().map(|byte| byte ^ first).take(len).collect())
    }

    fn pieces(content: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (content.len() + 1)).collect();
        cuts.extend([0, content.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|ends| content[ends[0]..ends[1]].to_vec()).collect()
    }

    proptest! {
        #[test]
        fn many_contents_have_the_hash_that_each_has_alone(contents in vec(content(), 0..9)) {
            let slices: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
            let alone: Vec<Hash> = contents.iter().map(|content| expected(content)).collect();
            prop_assert_eq!(each(&slices), alone);
        }

        #[test]
        fn pieces_make_the_same_as_the_whole(content in content(), cuts in vec(any::<usize>(), 0..6)) {
            let mut hasher = Sha256::default();
            pieces(&content, &cuts).iter().for_each(|piece| hasher.update(piece));
            prop_assert_eq!(hasher.finish(), expected(&content));
        }

        #[test]
        fn pieces_of_two_contents_do_not_mix(
            contents in [content(), content()],
            cuts in [vec(any::<usize>(), 4), vec(any::<usize>(), 4)],
        ) {
            let [mut one, mut other] = [Sha256::default(), Sha256::default()];
            let all = [pieces(&contents[0], &cuts[0]), pieces(&contents[1], &cuts[1])];
            for (mine, others) in all[0].iter().zip(&all[1]) {
                Sha256::update_both([&mut one, &mut other], [mine, others]);
            }
            prop_assert_eq!([one.finish(), other.finish()], contents.each_ref().map(|content| expected(content)));
        }
    }

    #[test]
    fn each_length_up_to_four_blocks_ends_as_it_should() {
        let content: Vec<u8> = (0..=255).collect();
        for len in 0..=content.len() {
            let content = &content[..len];
            assert_eq!(
                each(&[content, content, content]),
                [expected(content); 3],
                "{len} bytes"
            );
        }
    }
}
