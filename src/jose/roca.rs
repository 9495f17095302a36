//! The fingerprint of RSA keys from a flawed generator: ROCA, CVE-2017-15361. Their private keys
//! can be computed.
//!
//! The generator makes primes of the form `k·M + (65537^a mod M)`, where `M` is a product of small
//! primes. A modulus is the product of two such primes, so modulo each small prime it is a power of
//! 65537. A sound modulus has this property for all 38 small primes with a probability of about
//! 2^-27.

const PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97,
    101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// Whether `modulus`, big-endian, has the fingerprint.
pub(super) fn is_weak(modulus: &[u8]) -> bool {
    PRIMES.iter().all(|prime| is_power_of_65537(remainder(modulus, *prime), *prime))
}

fn remainder(number: &[u8], divisor: u32) -> u32 {
    number.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % divisor)
}

fn is_power_of_65537(residue: u32, prime: u32) -> bool {
    let mut power = 1;
    // The powers repeat after at most prime − 1 steps.
    (1..prime).any(|_| {
        power = power * (65537 % prime) % prime;
        power == residue
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_powers_of_65537_are_weak() {
        // 65537^3 itself is a power modulo every prime.
        let cube = 65537_u128.pow(3).to_be_bytes();
        assert!(is_weak(&cube));
        // A multiple of 3 is zero modulo 3, which is no power.
        assert!(!is_weak(&(65537_u128.pow(3) * 3).to_be_bytes()));
        assert!(!is_weak(&(65537_u128.pow(3) + 2).to_be_bytes()));
    }

    #[test]
    fn remainders_are_exact() {
        for number in [0_u64, 1, 255, 256, 65_537, u64::MAX] {
            for prime in PRIMES {
                assert_eq!(
                    u64::from(remainder(&number.to_be_bytes(), prime)),
                    number % u64::from(prime)
                );
            }
        }
    }
}
