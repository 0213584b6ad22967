#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use proptest::prelude::*;

const PASSWORD: &str = "correct horse ä";

/// Made with passlib 1.7.4 and `doveadm pw` 2.3.
const FOREIGN: &[&str] = &[
    "$argon2id$v=19$m=64,t=2,p=1$oNT6X8tZy/l/711rTYlRag$bISIxXH+PB8RxNfGF2FKpZEUWMKawUlu1Fk6kr34Mlo",
    "$argon2i$v=19$m=64,t=2,p=2$YQxBKIVQqjWG8B6DUEqJsQ$VbNghst9SeyazgrDrb9J9BHL5WqeY1mPXwPj+5ifTMc",
    "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$kcFaV1P7W6aihi+/Q1GynQ$K9utZqIEYkS6qEpI0C1j8UTCvpsDKNq/U3M98V3lLik",
    "{ARGON2I}$argon2i$v=19$m=32768,t=4,p=1$T9K/OprB9cBbbRwRh+8A6w$y90VNaXSvhqHCepBOkfr4n5WEHkc8I6ystidk/N8ATI",
    "$2a$04$ZB1cuA3OvDSA8yNXHTqQweablvXnBCFNxzNpOX8UU5vspwXK4SotO",
    "$2b$04$5yf5TWQ.OsgfhbrTurLRu.Rnd2fcawif4I5Q.QigQtD3rRBzQY2py",
    "$2y$04$SvtdvkNq0HSSds6Q9SSoFur2i5hNOuYRXxTKCYwGL6dHNK7KxLBA6",
    "{BLF-CRYPT}$2y$05$iV5nCrwrjkc2a25WpY/4R.tNcG01SH8jW/47Aeqo6.4p4TzkKE27a",
    "{CRYPT}$2y$05$Jwi35dawEppu1ckQz5PAhervF3ra5jcweG1X0Q//As4CZqFiPf5Z2",
    "$5$rounds=1000$vUtaG3myEb68rwMm$Z2jNueVnAWuJZ3t1i0bqSd2cl8VkH1TYu7jkSSV3rY1",
    "$5$gCSollp3wUwByu5x$O5.M/DyIw5jcFYSh0MMRNyGAmkni4fgmPXUYT7nb6n0",
    "{SHA256-CRYPT}$5$sm6DNi6LcmglnQMc$XRjmcabzeF/BrhZl3aqKKFb7ld3YxfpjC4eAaHGAd40",
    "$6$rounds=1000$abc$Ns9/nZNEnqWzoNvMxPN9ntghV13I6qZKD0ATgMS4w9soU93Jq.0McbOph/Hoq7VYtfosvvgjANx.RIN4EMnOc.",
    "$6$IcGOodu7Op3vajxK$e8WoU.s8sS3abxW6W/LBsRaWr8hoB8y.rLV1441lbZ9/1KYgm50my6qKsQUMZjPCCdrjlZN7fcGPFWgl13Yav1",
    "{SHA512-CRYPT}$6$3gBmS5aBkjC.ddKv$Ff0.8k59dUow.cqwP3zFWVR5PDbOELlwU9rB1vWfeJIc/L3RsZ81K8H8atAvnjHcohYx4OBUyooMpMdzD2yMJ1",
    "{SHA}4Lc+MsssgfipbTS7SkbRs/dRLuk=",
    "{SHA1}4Lc+MsssgfipbTS7SkbRs/dRLuk=",
    "{SHA.B64}4Lc+MsssgfipbTS7SkbRs/dRLuk=",
    "{SHA256}gJnwaoGF//HZbBJ979sOQUVsTWTHSrBOyhvr6F2bDq0=",
    "{SHA512}FzU1/NRG2gmvw3XoKUU/0q/NylqI30lxRW890ux1TFIxIqf/cqX16qULbHgX7wmicvsRCLNLaVCoMAE+fja6yA==",
    "{SHA512.HEX}173535fcd446da09afc375e829453fd2afcdca5a88df4971456f3dd2ec754c523122a7ff72a5f5eaa50b6c7817ef09a272fb1108b34b6950a830013e7e36bac8",
    "{SSHA}Q6VgSMii3G3jC3kx8iFlTtB0eDKwbZmj",
    "{SSHA}LvwIir423Hl8up68pu1t2fL2uQ+CsJZS",
    "{SSHA256}d7ke6J2kfRp+GUqba5S8HXIGc8spX8WlpzhlOhd8hhqfKyOi",
    "{SSHA256.HEX}4bf6814ba7eb67c2d4767b1c89580b3867aa6ad4b1fac2ec32d84211ae9d2f1573d90224",
    "{SSHA256}i7DOE28Vk+uVIArW9x8hkKhTJZprEdO/qDm902AoM2L/vxfC2Jtzzg==",
    "{SSHA512}zmC7EuN9UGgnWLcrGzjLRRoSEZaUszpilBrMvV2Hg0u2t2Pi4DgAIaBA+NyqaO+VljmV2lKRHXY/zGz4h5tHa4Zcixo=",
    "{SSHA512}M462U7Iegx0gNK8VNzE1wdV24Lh36j8Qli+BAwPl0UldLdNgc48iSTNMhOglIzaaiAKzjLEmhc9SayiM3+xc4SBkDAFAqFWq",
    "{PBKDF2}$1$tYInFid/RFjJhCFj$5000$365f14885ffec71b9353ed1412b84951f98d6a3c",
    "$pbkdf2$100$x3gvhVDK.d8757y3NkboXQ$8C.7rMwjfIjZG4nW1oPtZKIvgE8",
    "$pbkdf2-sha256$100$em/t/T8HIOSc03pvba31Pg$1dkl.xKF9MHD5s5jQ.XbBEaKWv5efS38WuscIQ0symo",
    "$pbkdf2-sha512$100$8n6v9X7P2RtjDMHY.3.vtQ$yJXj4z4gE.8eOiCYX5i20OsE1MK7f.fJfwTaKd.SWktS0rjJDlgRePRLIzDp.rOSMf3zNwDnJyOyRcvD/GbI1Q",
    "{SCRAM-SHA-256}4096,QkUAgmMaB8EyGqwV8a4Y2Q==,fEFJbgH1fvU49kphgLRcrBSuffV0RW1NqP0ILophDdo=,XZnQVoEn5Ze0q97/ZQDQkRqVzmKsiNt5fb7jVDQp1Dg=",
    "{PLAIN}correct horse ä",
    "{cleartext}correct horse ä",
];

fn small() -> Hashing {
    Hashing {
        memory_kib: 64,
        iterations: 1,
        ..Hashing::default()
    }
}

#[test]
fn what_other_systems_wrote_is_read() {
    for text in FOREIGN {
        let hash = Hash::parse(text, true).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(hash.verify(PASSWORD), "{text}");
        assert!(!hash.verify("correct horse a"), "{text}");
        assert!(!hash.verify(""), "{text}");
    }
}

#[test]
fn passwords_in_clear_need_permission() {
    assert_eq!(
        Hash::parse("{PLAIN}secret", false).err(),
        Some(HashError::Plain)
    );
    assert_eq!(Hash::parse("secret", true).err(), Some(HashError::Unknown));
}

#[test]
fn own_hashes_are_argon2id_of_the_configured_strength() {
    let config = small();
    let text = make(PASSWORD, &config).unwrap();
    assert!(text.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{text}");
    assert_ne!(text, make(PASSWORD, &config).unwrap());
    assert!(Hash::parse(&text, false).unwrap().verify(PASSWORD));
    assert!(is_current(&text, &config));
    let stronger = Hashing {
        iterations: 2,
        ..small()
    };
    assert!(!is_current(&text, &stronger));
    for other in FOREIGN.iter().skip(1) {
        assert!(!is_current(other, &config), "{other}");
    }
    let absurd = Hashing {
        memory_kib: u32::MAX,
        ..small()
    };
    assert_eq!(make(PASSWORD, &absurd), Err(HashError::Hashing));
}

#[test]
fn costly_and_broken_hashes_are_refused() {
    for text in [
        "$argon2id$v=19$m=4194304,t=2,p=1$oNT6X8tZy/l/711rTYlRag$bISIxXH+PB8RxNfGF2FKpZEUWMKawUlu1Fk6kr34Mlo",
        "$2y$20$SvtdvkNq0HSSds6Q9SSoFur2i5hNOuYRXxTKCYwGL6dHNK7KxLBA6",
        "$6$rounds=999999999$abc$Ns9/nZNEnqWzoNvMxPN9ntghV13I6qZKD0ATgMS4w9soU93Jq.0McbOph/Hoq7VYtfosvvgjANx.RIN4EMnOc.",
        "{PBKDF2}$1$tYInFid/RFjJhCFj$500000000$365f14885ffec71b9353ed1412b84951f98d6a3c",
    ] {
        assert_eq!(
            Hash::parse(text, true).err(),
            Some(HashError::Costly),
            "{text}"
        );
    }
    for text in [
        "",
        "$",
        "{",
        "{}",
        "{SSHA}",
        "{SSHA}AAAA",
        "{SHA}Q6VgSMii3G3jC3kx8iFlTtB0eDKwbZmj",
        "{SSHA256.HEX}zz",
        "$2y$05$short",
        "$2y$x$SvtdvkNq0HSSds6Q9SSoFur2i5hNOuYRXxTKCYwGL6dHNK7KxLBA6",
        "$6$abc",
        "$6$abc$def",
        "$argon2id$v=19$m=64,t=2,p=1$",
        "$argon2id$",
        "{PBKDF2}$1$a$0$365f14885ffec71b9353ed1412b84951f98d6a3c",
        "{SCRAM-SHA-256}4096,QkUA,AA==,AA==",
        "{MD5}x",
        "$1$abc$def",
        "{PLAIN}",
    ] {
        assert!(Hash::parse(text, true).is_err(), "{text}");
    }
}

#[test]
fn passwords_are_prepared() {
    assert_eq!(opaque("p\u{e4}ss").unwrap(), "p\u{e4}ss");
    assert_eq!(opaque("pa\u{308}ss").unwrap(), "p\u{e4}ss");
    // RFC 8265 4.3
    assert_eq!(opaque("foo\u{1680}bar").unwrap(), "foo bar");
    assert_eq!(
        opaque("\u{3c0}\u{df}\u{e5}").unwrap(),
        "\u{3c0}\u{df}\u{e5}"
    );
    assert_eq!(opaque(""), None);
    assert_eq!(opaque("my cat is a \u{9}by"), None);
    // RFC 4013 3
    assert_eq!(saslprep("I\u{ad}X"), "IX");
    assert_eq!(saslprep("\u{aa}"), "a");
    assert_eq!(saslprep("USER"), "USER");
    assert_eq!(saslprep("\u{7}"), "\u{7}");
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in "(\\{[A-Z0-9.-]{0,14}\\})?(\\$[a-z0-9-]{0,13})?(\\$[ -~]{0,30}){0,5}") {
        let _ = Hash::parse(&text, true);
    }

    #[test]
    fn damaged_hashes_never_panic(place in 0usize..200, octet in 0x20u8..0x7f, which in 0usize..FOREIGN.len()) {
        let mut text = FOREIGN[which].as_bytes().to_vec();
        if let Some(at) = text.get_mut(place) { *at = octet; }
        if let Ok(text) = std::str::from_utf8(&text) {
            let _ = Hash::parse(text, true);
        }
    }
}
