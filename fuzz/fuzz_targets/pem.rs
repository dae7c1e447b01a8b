//! A CA bundle: the certificates that are found in it are written as a bundle that has the same certificates.
#![no_main]

use libfuzzer_sys::fuzz_target;
use podshaper_certificates::certificate::Certificate;

fuzz_target!(|pem: &[u8]| {
    if let Ok(certificates) = Certificate::parse_pem(pem) {
        let written: String = certificates.iter().map(Certificate::to_pem).collect();
        assert_eq!(Certificate::parse_pem(written.as_bytes()), Ok(certificates));
    }
});
