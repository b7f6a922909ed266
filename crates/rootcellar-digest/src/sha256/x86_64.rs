//! The compression of SHA-256 for two contents side by side, with the instructions that x86 has for it.
//!
//! `sha256rnds2` makes two rounds, and its result is there after four cycles or more; the next two rounds need it. A second content, whose
//! instructions come in between, goes along for little (0009 has figures). More than two have no registers.
//!
//! The instructions want the eight words of a state as (a, b, e, f) and (c, d, g, h), highest first (Intel SDM, SHA256RNDS2).

#![allow(
    unsafe_code,
    reason = "the instructions have to be there, and vectors are loaded through pointers"
)]

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_loadu_si128, _mm_set_epi32, _mm_set_epi64x,
    _mm_setzero_si128, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8,
    _mm_shuffle_epi32,
};

use super::{Block, State};

/// The constants of the rounds (FIPS 180-4, 4.2.2), four a row.
const ROUNDS: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
    [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
    [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
    [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
    [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
    [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
    [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
    [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
    [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

/// Whether the processor has the instructions.
pub(super) fn is_possible() -> bool {
    is_x86_feature_detected!("sha") && is_x86_feature_detected!("ssse3") && is_x86_feature_detected!("sse4.1")
}

/// Adds as many blocks to each state; does nothing and says so if the processor has no instructions for it.
pub(super) fn compress_both(states: &mut [State; 2], blocks: [&[Block]; 2]) -> bool {
    let is_possible = is_possible();
    if is_possible {
        // SAFETY: the processor has what the function is compiled for, as was just seen.
        unsafe { with_instructions(states, blocks) };
    }
    is_possible
}

#[target_feature(enable = "sha,ssse3,sse4.1")]
fn with_instructions(states: &mut [State; 2], blocks: [&[Block]; 2]) {
    let mut abef = [_mm_setzero_si128(); 2];
    let mut cdgh = abef;
    for lane in 0..2 {
        let [a, b, c, d, e, f, g, h] = states[lane].map(u32::cast_signed);
        abef[lane] = _mm_set_epi32(a, b, e, f);
        cdgh[lane] = _mm_set_epi32(c, d, g, h);
    }
    for pair in blocks[0].iter().zip(blocks[1]) {
        compress_block([pair.0, pair.1], &mut abef, &mut cdgh);
    }
    for (lane, state) in states.iter_mut().enumerate() {
        let (front, back) = (abef[lane], cdgh[lane]);
        *state = [
            _mm_extract_epi32::<3>(front),
            _mm_extract_epi32::<2>(front),
            _mm_extract_epi32::<3>(back),
            _mm_extract_epi32::<2>(back),
            _mm_extract_epi32::<1>(front),
            _mm_extract_epi32::<0>(front),
            _mm_extract_epi32::<1>(back),
            _mm_extract_epi32::<0>(back),
        ]
        .map(i32::cast_unsigned);
    }
}

#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn compress_block(blocks: [&Block; 2], abef: &mut [__m128i; 2], cdgh: &mut [__m128i; 2]) {
    let before = (*abef, *cdgh);
    // The last sixteen words of the schedule, four a vector; the oldest four make place for the next.
    let mut words = [[_mm_setzero_si128(); 4]; 2];
    for lane in 0..2 {
        words[lane] = load(blocks[lane]);
    }
    // Written out, so that all words stay in registers.
    macro_rules! four_rounds {
        ($($row:literal)*) => {$(
            let [w, x, y, z] = ROUNDS[$row].map(u32::cast_signed);
            let constants = _mm_set_epi32(z, y, x, w);
            for lane in 0..2 {
                let new = $row % 4;
                if $row >= 4 {
                    words[lane][new] = next_words(&words[lane], new);
                }
                let sum = _mm_add_epi32(words[lane][new], constants);
                cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], sum);
                abef[lane] = _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], _mm_shuffle_epi32::<0b1110>(sum));
            }
        )*};
    }
    four_rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    for lane in 0..2 {
        abef[lane] = _mm_add_epi32(abef[lane], before.0[lane]);
        cdgh[lane] = _mm_add_epi32(cdgh[lane], before.1[lane]);
    }
}

/// The four words of the schedule that follow the sixteen that there are, of which those at `oldest` came first.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn next_words(words: &[__m128i; 4], oldest: usize) -> __m128i {
    let at = |later: usize| words[(oldest + later) % 4];
    let seven_before = _mm_alignr_epi8::<4>(at(3), at(2));
    let sum = _mm_add_epi32(_mm_sha256msg1_epu32(at(0), at(1)), seven_before);
    _mm_sha256msg2_epu32(sum, at(3))
}

/// The sixteen words of a block, which are big-endian.
#[inline]
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn load(block: &Block) -> [__m128i; 4] {
    let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let mut words = [_mm_setzero_si128(); 4];
    for (words, bytes) in words.iter_mut().zip(block.as_chunks::<16>().0) {
        // SAFETY: sixteen bytes are read, from a reference to sixteen; the instruction takes any alignment.
        let loaded = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
        *words = _mm_shuffle_epi8(loaded, swap);
    }
    words
}
