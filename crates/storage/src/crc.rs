//! CRC-32C that goes on where it stopped, so that a file's CRC grows with the file.

/// The CRC of no bytes.
pub(crate) const EMPTY: u32 = 0;

/// The CRC of everything behind `crc` and `bytes` after it.
pub(crate) fn extend(crc: u32, bytes: &[u8]) -> u32 {
    let state = u64::from(crc ^ u32::MAX);
    let mut digest = crc_fast::Digest::new_with_init_state(crc_fast::CrcAlgorithm::Crc32Iscsi, state);
    digest.update(bytes);
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_give_the_crc_of_the_whole() {
        let bytes: Vec<u8> = (0..5_000u32).map(|i| (i * 31 % 251) as u8).collect();
        assert_eq!(extend(EMPTY, b"123456789"), 0xe306_9283);
        assert_eq!(extend(EMPTY, &bytes), crc_fast::crc32_iscsi(&bytes));
        for cut in [0, 1, 21, 4_096, 5_000] {
            let (head, tail) = bytes.split_at(cut);
            assert_eq!(extend(extend(EMPTY, head), tail), crc_fast::crc32_iscsi(&bytes));
        }
    }
}
