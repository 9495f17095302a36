//! Throw-away keys that the `openssl` command wrote, and one with the ROCA fingerprint. They
//! protect nothing.

/// `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048`
pub(super) const RSA: &str = "\
     -----BEGIN PRIVATE KEY-----\n\
     MIIEvwIBADANBgkqhkiG9w0BAQEFAASCBKkwggSlAgEAAoIBAQC16I2ncxhnFI3h\n\
     8Rh5lN5AMcmwEAAbNbN9BwjjSRYK6Ha3QI/qrfAJqad+MMy13PVtJkX/oMaIWlz8\n\
     Cya9tdaAzNpOSDuIdCrT7rJ8f5uqjGB9WyhtOIpx0v6Wh8NzXQFEl/CpX8FUTxSV\n\
     DO2BeQeUZV3WF57qbHw7v7uHfIz98MGAodyEU7hT92J16rDq7HVGucBL9exvLGzm\n\
     bbaUJmC6CxiIMe0Ia4oLYYRdfoEjGEUj3YAe96Qark1/b1NzPw7kMUBMoum+/1e8\n\
     H6SylbEjxsvd6GIhYpsWu0T418EwiHdzKB9D/K981/esPRcp3XbKoP90IufEjuDy\n\
     /wTW2NlrAgMBAAECggEATOSI4EPUCFqVYPDvNhF54uvIw+33hYjtHof3N1ABC8pY\n\
     yDx3uS0eHo+Ct+I73hIRAjrf8t7MnP2JeZbjIOT4z4gILXf2BkeIhP5Mnzi3nd9p\n\
     uANs8sIoL1YPfKTVtvGU5CBPv+C0kYU9/4Uv7f8xd4ZjpGhmqdQCraTtyacZ2AsS\n\
     BAQimWaKZdc4jabh/4vYcg40GELVXojorng8qUd+0cP693qggfI93Q4Dquuspwqv\n\
     PRx1Qz6WCcW/ByRB58iAcj+MFHdShx3a4Qf/hUtZvQ2isvD5tK4to0PWn/q+iiJZ\n\
     nSrq8kO/3qCg05k7BgfFswpR96fcjN3N3Ilmwpo3OQKBgQDuNlisYBgHfLR+TM75\n\
     fND8cdq4olMR8dJKqvppR4jQIPyZcILVvaejz5ex/GssIFw4JOQhwkoNJbpy8jzY\n\
     MfVUDACc6Z4j/pxattBexzi1D0eNqEH+OjBIDsG+JfB6rLllBqMxgKq8qfI5Y7DQ\n\
     ZTwtH6BU35eTVhMa+QCf0nB1mQKBgQDDfeervqnfpKpdO7hm0jZdDvkPgQW9nNRB\n\
     uOJrbyXXclC+TAiZj/boNCpnClvpGdyeRF9c+Cj4BqybbCJ9SaW7R/g/EN8M8x7/\n\
     V18K4Cs8N+odA9kuqf1Wfz/DpA1zNKfege9hQX7Zeg3XMfUrnr+N/3vp/0QaQdF5\n\
     ATaSoYdhowKBgQCZ08yFW/SIeTZRTSZnI/wM2TUl/+Tm9KMZBrp4W/J0fKjCKU7D\n\
     2ho0hWzvShKnRypmMySCzGVnghKaAeXassA7CxkmOxKdKeEsD1wVqE7tVTWeu6YK\n\
     Fudw0N65/OQDRCDgpV2jLPSUqqY5+y+GE6m9devigxTt1yq1Q1Ds5EctGQKBgQC2\n\
     pDHG3mo9PM3CL2J4Bduuk6eTmZpwbU5NXNuFPiGfqPjQ4Z6DQeKPTPV0sVPvcy8Q\n\
     Wpax+FPmbe3jg2KxpRYG5BWFblDF+3qxWsK8GXWrXB4JH6hQFZdPsbE0Klg6ky5n\n\
     DwRD2/oUWxkFPXJuX3FdzBzMIKZS1b1MDRscYXdnewKBgQDr9YQXjzFMbpQbsb1g\n\
     nNoR0Tlv6PkznEE8QA/nqbeHNb8hFh8BuE67y6BQL9fzVsC1WNileEj0u5zemDbH\n\
     DwQbK0HhvyXgxwAL9GF5qy2oDKy4uPWInb/PkMMsp4SLLgK67MS9nRghbNGYE3Yv\n\
     x5jPKjHGjvpemvXSZBtGg8bPng==\n\
     -----END PRIVATE KEY-----\n";

/// `openssl pkey -traditional` of [`RSA`]
pub(super) const RSA_PKCS1: &str = "\
     -----BEGIN RSA PRIVATE KEY-----\n\
     MIIEpQIBAAKCAQEAteiNp3MYZxSN4fEYeZTeQDHJsBAAGzWzfQcI40kWCuh2t0CP\n\
     6q3wCamnfjDMtdz1bSZF/6DGiFpc/AsmvbXWgMzaTkg7iHQq0+6yfH+bqoxgfVso\n\
     bTiKcdL+lofDc10BRJfwqV/BVE8UlQztgXkHlGVd1hee6mx8O7+7h3yM/fDBgKHc\n\
     hFO4U/dideqw6ux1RrnAS/Xsbyxs5m22lCZgugsYiDHtCGuKC2GEXX6BIxhFI92A\n\
     HvekGq5Nf29Tcz8O5DFATKLpvv9XvB+kspWxI8bL3ehiIWKbFrtE+NfBMIh3cygf\n\
     Q/yvfNf3rD0XKd12yqD/dCLnxI7g8v8E1tjZawIDAQABAoIBAEzkiOBD1AhalWDw\n\
     7zYReeLryMPt94WI7R6H9zdQAQvKWMg8d7ktHh6PgrfiO94SEQI63/LezJz9iXmW\n\
     4yDk+M+ICC139gZHiIT+TJ84t53fabgDbPLCKC9WD3yk1bbxlOQgT7/gtJGFPf+F\n\
     L+3/MXeGY6RoZqnUAq2k7cmnGdgLEgQEIplmimXXOI2m4f+L2HIONBhC1V6I6K54\n\
     PKlHftHD+vd6oIHyPd0OA6rrrKcKrz0cdUM+lgnFvwckQefIgHI/jBR3Uocd2uEH\n\
     /4VLWb0NorLw+bSuLaND1p/6vooiWZ0q6vJDv96goNOZOwYHxbMKUfen3IzdzdyJ\n\
     ZsKaNzkCgYEA7jZYrGAYB3y0fkzO+XzQ/HHauKJTEfHSSqr6aUeI0CD8mXCC1b2n\n\
     o8+XsfxrLCBcOCTkIcJKDSW6cvI82DH1VAwAnOmeI/6cWrbQXsc4tQ9HjahB/jow\n\
     SA7BviXweqy5ZQajMYCqvKnyOWOw0GU8LR+gVN+Xk1YTGvkAn9JwdZkCgYEAw33n\n\
     q76p36SqXTu4ZtI2XQ75D4EFvZzUQbjia28l13JQvkwImY/26DQqZwpb6RncnkRf\n\
     XPgo+Aasm2wifUmlu0f4PxDfDPMe/1dfCuArPDfqHQPZLqn9Vn8/w6QNczSn3oHv\n\
     YUF+2XoN1zH1K56/jf976f9EGkHReQE2kqGHYaMCgYEAmdPMhVv0iHk2UU0mZyP8\n\
     DNk1Jf/k5vSjGQa6eFvydHyowilOw9oaNIVs70oSp0cqZjMkgsxlZ4ISmgHl2rLA\n\
     OwsZJjsSnSnhLA9cFahO7VU1nrumChbncNDeufzkA0Qg4KVdoyz0lKqmOfsvhhOp\n\
     vXXr4oMU7dcqtUNQ7ORHLRkCgYEAtqQxxt5qPTzNwi9ieAXbrpOnk5macG1OTVzb\n\
     hT4hn6j40OGeg0Hij0z1dLFT73MvEFqWsfhT5m3t44NisaUWBuQVhW5Qxft6sVrC\n\
     vBl1q1weCR+oUBWXT7GxNCpYOpMuZw8EQ9v6FFsZBT1ybl9xXcwczCCmUtW9TA0b\n\
     HGF3Z3sCgYEA6/WEF48xTG6UG7G9YJzaEdE5b+j5M5xBPEAP56m3hzW/IRYfAbhO\n\
     u8ugUC/X81bAtVjYpXhI9Luc3pg2xw8EGytB4b8l4McAC/RheastqAysuLj1iJ2/\n\
     z5DDLKeEiy4CuuzEvZ0YIWzRmBN2L8eYzyoxxo76Xpr10mQbRoPGz54=\n\
     -----END RSA PRIVATE KEY-----\n";

/// `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`
pub(super) const P256: &str = "\
     -----BEGIN PRIVATE KEY-----\n\
     MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgGrTdlEhiLQcfUIV+\n\
     8gK9KBgXCWzzAYepO8x1ZPLxytGhRANCAAQvgbgFw2xVd/ee9k0obnGUOaLBkj3U\n\
     fi+07gNskRApgd3+KkbYtm701FDKvCwGfEtu1wvuspKxnCqFwb0YF5Cw\n\
     -----END PRIVATE KEY-----\n";

/// `openssl pkey -traditional` of [`P256`]
pub(super) const P256_SEC1: &str = "\
     -----BEGIN EC PRIVATE KEY-----\n\
     MHcCAQEEIBq03ZRIYi0HH1CFfvICvSgYFwls8wGHqTvMdWTy8crRoAoGCCqGSM49\n\
     AwEHoUQDQgAEL4G4BcNsVXf3nvZNKG5xlDmiwZI91H4vtO4DbJEQKYHd/ipG2LZu\n\
     9NRQyrwsBnxLbtcL7rKSsZwqhcG9GBeQsA==\n\
     -----END EC PRIVATE KEY-----\n";

/// `openssl ec -conv_form compressed` of [`P256`]
pub(super) const P256_COMPRESSED: &str = "\
     -----BEGIN EC PRIVATE KEY-----\n\
     MFcCAQEEIBq03ZRIYi0HH1CFfvICvSgYFwls8wGHqTvMdWTy8crRoAoGCCqGSM49\n\
     AwEHoSQDIgACL4G4BcNsVXf3nvZNKG5xlDmiwZI91H4vtO4DbJEQKYE=\n\
     -----END EC PRIVATE KEY-----\n";

/// `openssl ec -no_public` of [`P256`]
pub(super) const P256_WITHOUT_PUBLIC: &str = "\
     -----BEGIN EC PRIVATE KEY-----\n\
     MDECAQEEIBq03ZRIYi0HH1CFfvICvSgYFwls8wGHqTvMdWTy8crRoAoGCCqGSM49\n\
     AwEH\n\
     -----END EC PRIVATE KEY-----\n";

/// `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384`
pub(super) const P384: &str = "\
     -----BEGIN PRIVATE KEY-----\n\
     MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDDaHleQwoMyQs/9/tKg\n\
     g7tFPAs8/z3DuTbKmSYKpeO0/kEtXgrb6i+I6jw1wW0XDbShZANiAASVKi629Y5E\n\
     BMlpbOmA2vCxGYpL9y5e2JpEwguZY1giFIyhsIMnhkmB6PzxgzmcgKzB7POeGlIo\n\
     jTegZAR4vCWWK/sSlXv4GvGp3OK3xMRjho1uHzdc9te0rG6zka+DtVU=\n\
     -----END PRIVATE KEY-----\n";

/// `openssl ecparam -name secp384r1 -genkey`
pub(super) const P384_PARAMETERS: &str = "\
     -----BEGIN EC PARAMETERS-----\n\
     BgUrgQQAIg==\n\
     -----END EC PARAMETERS-----\n\
     -----BEGIN EC PRIVATE KEY-----\n\
     MIGkAgEBBDAXu1qr4y+kt5rzPcMfrLoGuvu14SIW33yk8YL8MslWr0rC/56gP9J5\n\
     Ic+reZ6JDs2gBwYFK4EEACKhZANiAAR1TaNVyfwTPMBG9AIhrL0mvosDXi2isjem\n\
     9nJSPRRjs13GzQH1LdqOO1V8RUxOGN6gKiPtgu2eWvesTA3ZvAyl1waI2JC3NDMY\n\
     9RU4PDyggpEkdCnZhKedfoe+yKD6yTA=\n\
     -----END EC PRIVATE KEY-----\n";

/// `openssl genpkey -algorithm ed25519`
pub(super) const ED25519: &str = "\
     -----BEGIN PRIVATE KEY-----\n\
     MC4CAQAwBQYDK2VwBCIEIKdznqD+2WxtioJonqBsIroSy6jvzMh57Bz/eLKaLjE5\n\
     -----END PRIVATE KEY-----\n";

/// `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024`
pub(super) const RSA_1024: &str = "\
     -----BEGIN PRIVATE KEY-----\n\
     MIICdgIBADANBgkqhkiG9w0BAQEFAASCAmAwggJcAgEAAoGBALIlsVbf+DNNumBy\n\
     2xaxWVtEqfXZTyuoRzAsaSoFCrV2wJ8A34A0JhnYfYGBdLhyCS7rRazKJTETJ3Q/\n\
     QiYiAi9pdrQtU7JVJbtD0KQrsINz6VmsNdEGDZTiEPBWRk3ca8tobcca/ISZElc8\n\
     2CQ+Esin79MiuDJY1XLQmIwMwsJ7AgMBAAECgYAvA+OZmeJXJ9xYN/e6NXPvsl9o\n\
     ksFiNDcVb6MRg+MfoQeU7xYNL7YefBQjaZb0VqQ1zcHFqFPIb9WpyEgc6DzK9XEF\n\
     Rxdf/o4zE/tzRklZd+ltOUkH8xCjK5zaAqILxBr5ou7vbAsISBD3qAuwcPuKfns6\n\
     BmoJALi3nXdf5LX6gQJBAOYlU5AOBaH20OZ7EeeSV89tYJOu6DDjUpfs2K+AiQPs\n\
     2jcbE5L+h28wPmt9LXW32y+fnWcN01xoZU3h18T+eh0CQQDGKPWwgQLQVq07ulkq\n\
     1AzWaPOb3kboOGAvJLg4te0DfzZf2WptyZaTXfTsxtPIaiahq/gi26NEZKQJARqk\n\
     v8t3AkEAtcL/BwN8AVl7zLuf/WL/xMuefaSirpGqVmBxFdKO47G4+dKBmBM7hV31\n\
     vlDDiXgmPKtz1cL+jbnJYEQgc+2DJQJABN1ykr/IGudV33aGw+dq3US8XmJJqV/g\n\
     9KdZIoNM614PLrE+zK07VijjX4DOKEh65FM9h1WPH5m88T+msM7IpwJAEYVihivT\n\
     m8kmT5tGBbtUNLH0IRz+VpZldvIStd/80BcWMlPbBvv3a77D6retIMHgWXfpfJOb\n\
     /Tj2aLu7f94kkQ==\n\
     -----END PRIVATE KEY-----\n";

/// `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521`
pub(super) const P521: &str = "\
     -----BEGIN PRIVATE KEY-----\n\
     MIHuAgEAMBAGByqGSM49AgEGBSuBBAAjBIHWMIHTAgEBBEIBuF8gCRHUvOR3JP+u\n\
     H4gvl2Ymotqj/ga1qVKi3EPRIXxGZdxQOSyynK2wQeK4Op/5NBQptzewXYe2+1Qe\n\
     UcdKIQKhgYkDgYYABAGLNya5XtU4pAyQfAstHQndIckUDlne8GTTCSFaJMhKSvaS\n\
     dKOg1g3EuAvSn4Er7IxD3bQtLPDHUZke4ITdPJBx0wHWBzH5/wcWs3Y3NGHz0VAn\n\
     0LACa9fAsFf8MXd/rLVC5VHUahGIVWCg0D+v4jtpU11sHfKGGM6fdfdYoiJ8r41f\n\
     gA==\n\
     -----END PRIVATE KEY-----\n";

/// `openssl ecparam -name secp256k1 -genkey -noout`
pub(super) const SECP256K1: &str = "\
     -----BEGIN EC PRIVATE KEY-----\n\
     MHQCAQEEIG2Jd9p81CZRhCZioWuMsWWKGXD2HM2vCnUqF7Wcm+HjoAcGBSuBBAAK\n\
     oUQDQgAEMkKkWR3eyJ939sggQXDqJGiNe21NSBNq/kLASjoFjLKXVswda1DQ8gma\n\
     SgNoUigS1bJTYY4xjiwL+ANf89QUTg==\n\
     -----END EC PRIVATE KEY-----\n";

/// `openssl ecparam -name prime256v1 -genkey -param_enc explicit`
pub(super) const P256_EXPLICIT: &str = "\
     -----BEGIN EC PARAMETERS-----\n\
     MIH3AgEBMCwGByqGSM49AQECIQD/////AAAAAQAAAAAAAAAAAAAAAP//////////\n\
     /////zBbBCD/////AAAAAQAAAAAAAAAAAAAAAP///////////////AQgWsY12Ko6\n\
     k+ez671VdpiGvGUdBrDMU7D2O848PifSYEsDFQDEnTYIhucEk2pmeOETnSa3gZ9+\n\
     kARBBGsX0fLhLEJH+Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT+NC4v4af5uO5+tK\n\
     fA+eFivOM1drMV7Oy7ZAaDe/UfUCIQD/////AAAAAP//////////vOb6racXnoTz\n\
     ucrC/GMlUQIBAQ==\n\
     -----END EC PARAMETERS-----\n\
     -----BEGIN EC PRIVATE KEY-----\n\
     MIIBaAIBAQQgab6Vf+ylmByQQoeTc2sQnr8eTug+qVpce4SEhl6Aw4mggfowgfcC\n\
     AQEwLAYHKoZIzj0BAQIhAP////8AAAABAAAAAAAAAAAAAAAA////////////////\n\
     MFsEIP////8AAAABAAAAAAAAAAAAAAAA///////////////8BCBaxjXYqjqT57Pr\n\
     vVV2mIa8ZR0GsMxTsPY7zjw+J9JgSwMVAMSdNgiG5wSTamZ44ROdJreBn36QBEEE\n\
     axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54W\n\
     K84zV2sxXs7LtkBoN79R9QIhAP////8AAAAA//////////+85vqtpxeehPO5ysL8\n\
     YyVRAgEBoUQDQgAE26uoOszcIDBoeq06x7yk//KfxBzLWS0ZBic2VoT2Mc0DhIoP\n\
     zaDxjDFHSXmVCZzlDjo5pUYkUAtac7ZiU/2uIg==\n\
     -----END EC PRIVATE KEY-----\n";

/// `openssl genpkey -algorithm ed448`
pub(super) const ED448: &str = "\
     -----BEGIN PRIVATE KEY-----\n\
     MEcCAQAwBQYDK2VxBDsEOROAXwFAtXDv0LD+p/C4PpsNXmgJO1o8RIyLjgZef5oa\n\
     qUsIUIicvFj3cs2e4dLRHS+/2wypzT1gtg==\n\
     -----END PRIVATE KEY-----\n";

/// `openssl genpkey -algorithm RSA-PSS`
pub(super) const RSA_PSS: &str = "\
     -----BEGIN PRIVATE KEY-----\n\
     MIIEuwIBADALBgkqhkiG9w0BAQoEggSnMIIEowIBAAKCAQEApPdoXTbxXQb5TxzH\n\
     lER9hLlTeBKXl6/tc7Q+f6KjB+mTEyh6QBG5idOp59HJQsCSMzko6FCLEPUx5Oyu\n\
     wToe4sgq8kzaqNJQLfLfcyvfC8smH0rvd6QecY0yQEAY5Xl7WHQNosiONCbv5itf\n\
     jwwGbBdRdrvo8sSr/BbR7zXnubPGK+szKLZ/++zlYA5k6EDZIAOcd6nH9zmFWthQ\n\
     AxGzE/WM1zGjOqn1yvwSBCloqutPoEEzW1qr/Lhfxi8X4fn9Q39Z/FJ2QFAwuF4x\n\
     Bzv2pydl1Xh6ZhIMzTTgY3qE9mCUV49b25LsX3ojTWnFkGL3TrDh0VAEd1xnn4Uq\n\
     ooHCvQIDAQABAoIBACQeMgikoKQ+RGP0mGLHOxcNz29c3LlekJXSWxOtW1X+Zw/c\n\
     /yUbbFy3jb3ecdruWCQkaecxST1ZfcbSJjHSpJQBANwjhQVM5LamtBMeghtuK0bT\n\
     LIpskajJYfzsu7a0ShPz9s9S60WSV9h0Wxvx5U8RrOma2zYZ5tDO+0BNNFK1JlXW\n\
     ZQ/EQwchVfwaURaU3I5x4sps5Go9mapYBJ5m8uAOsxPeS5v53eCtxMkp4fhC/438\n\
     m1FLY0gqQMN1xNDH5SK/VMYC5Z0CiFaNZCmzhw1DxFG0iB0prpyXnP8vkWtkFm4S\n\
     S4NaMnJtnsTKVkRl7aczE4g/VRvaWe3yRP12BykCgYEA0jqITMQIHOlG4GR6vCX/\n\
     O71r0AO/a3Pardi0wXlN2g0ONxwA7YDjt5wTm9n4Izo3rXbd43KBCLykCJMlqXZ0\n\
     RbJs+6h+NuGSmpukuciwfAGDBSneT6RlgtMEchfGu72lXVBHD0am/jVu7vx8kOP4\n\
     7BQSJdp6W6VgJ+rpHtNNZ/kCgYEAyOIbCqTVKOYZ7X7rO/JaUo7M2rmHY8bS19AK\n\
     H+2ZYW2IxO4iQ2ciT5q70H3vuFOZQ0p8LpIJCUCdM8tEVpsAzRE9Vrv+CdtZsPrK\n\
     bdOxyw1tk578lAjQs+rQnf0wyyLEwRqMBw+BWH3ViMc/f2N4nWQvpntjhuRKjJZQ\n\
     5BF8CeUCgYA3IDQXdRvvgNgeBRsN9SS9ZIk9zY3HPmTsSzPyu71HXT8KAmTX4oFT\n\
     5zBZIMnpat2otc+vUZo2UUjuGq+4hSAuGoBraR5Xg8Tul7uVH+PvUHIry3PJDIG1\n\
     0WGMDWIGXs9a7a8EeXFWnWpObpS3ZaAjP4wWsvh8yZuyO+4PMDdO+QKBgQCaKqyG\n\
     JqpQkQck9VqizwPyiBU/Z1M4h8YYSlj61+X2l5F3USqKgAQdA6tP/taSp9XfhrJ3\n\
     Kyw0JZp/vWfc72hV+P0SK4RzHBxhbpccYnL4Wn3V5RYCpiFFcthX55Ai1bQaXr1I\n\
     TeX+e9P8/K0GnthaMiE/q0Jeq6Vq75F09tYy4QKBgEIzP4jCs6i+BRBRKdjS4rwF\n\
     XXTfLA+2TyPKSrL8rEjWZgKyn327W4c3Q0xDwusRuj/1PJMQ3GiqEQ4wMIJecH6q\n\
     welBGP4L828cnifyfq9B7zMSO81nWnV5shiFhpz8aqABfvMzb53QcIQS0Vj40tIv\n\
     U+JDqPIBeyUw9Nt5PYse\n\
     -----END PRIVATE KEY-----\n";

/// `openssl pkey -aes256` of [`ED25519`]
pub(super) const ENCRYPTED: &str = "\
     -----BEGIN ENCRYPTED PRIVATE KEY-----\n\
     MIGbMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAi9XelpyTBzcQICCAAw\n\
     DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEI+r0AL1xyFsMwNYWHoP1yYEQCuC\n\
     EnkM8x2HmJYgXm43r5vxVK0UhBBi5yjwoMzxcsgP9+BYBIoRxiwkC5WPC2KHNZ8o\n\
     Xd+M+MNKMCPZKVtYQ3k=\n\
     -----END ENCRYPTED PRIVATE KEY-----\n";

/// `openssl ec -aes256` of [`P256`]
pub(super) const ENCRYPTED_SEC1: &str = "\
     -----BEGIN EC PRIVATE KEY-----\n\
     Proc-Type: 4,ENCRYPTED\n\
     DEK-Info: AES-256-CBC,9330FC9BA9C81CA54B506E2D0E85D078\n\
     \n\
     r+oPUe50hqtA5M9WXEzHe+MZn/1E/QFmOqNvySwdFGKbnxRwTImZ5Z1cDo1z1Npe\n\
     bI4ktdHAguHZT6C6eeoIvz/dwrhiUCq1EeRRdk5HNgB4gLxCXw0TyayxRdSSt2P0\n\
     nuCSvtu8AfbfD/5rLQBPtYl0VmlFGd6mh3+TPWP2J7o=\n\
     -----END EC PRIVATE KEY-----\n";

/// An RSA key whose primes have the form of CVE-2017-15361.
pub(super) const ROCA_JWK: &str = "\
     {\"kty\":\"RSA\",\"n\":\"sw8_FdgpLFw6ad534nFLxaXodZvGoHpd5hYpGJCalPQE-9-CWSi3Q7HoRMh9wfCvb\
     dtPQirWll4anXCgfsy2p-Y8BCHA7jbGr6rR_dQXasySRxnVTAbfFukaQ7Hb4iIA2TDWntFggQ03GsNVI8Q_7pbpD6q\
     JWlqXIaLnzaagdl3-zsnf9n6kvq6fqrhBk7DVWxtT_vXHqMYZ7KZgyLo6Mlm2PykC8TahNkntibD8bmrCtxc3zIADG\
     AaMww_Ty_kLtKxRAH4ZBkQIIZqFgQQ3sGx7r9tA9bc-pH5kvIIs9CnrMJVu3wTVJWcu6dbqxK73bEabkWBhFSZnJ1x\
     FQKgW8Q\",\"e\":\"AQAB\",\"d\":\"NVmhE7qcheWS1_FbaeIUz_ZfPQ9lTnI3IPNQWkvXavMLuxn8peD-PZK34\
     CqWYZ77PfGee1n1JscyCd_BShZng74S-q4t5Cv45eUw_P5g3cbG_J1DUownkxVv6GSJXaaA9zVYdOhwZvMPjI9PgkE\
     aRVW8ahkHJJ8iMXjutPTlEW7vXt_VJLr5MXob_5fEx6oFpDDzWfJ1jtdR8rkw8m4TZUB9r8AXzK6iIEBsskDb4Mzw_\
     I3v_-GYXxKhoA8J8U_B3FG3UX_1vVthEYutAT1ssRC_XBWQFPmb38Mehki8r6i0O6dQmtWYS-gVpXNJtAQklDdZZoJ\
     R1AjvC8kyFkQysw\",\"p\":\"4IiqYr87-AKc-rTXVQE93Ie2tzHWv0T1HKbdMdLahm_Vru17JgPnuCV3JDBORxHd\
     yMGx8d7KSVpSIPETKU_XCV5gJh2dw_NKrtB-98MeH2Q84EcEQ0zir3tnY8St1T4q22KQ2QYHccNlOXiEHQiwWoE401\
     sZ0B0Gu-KFoJeXxUM\",\"q\":\"zCcnUoVj6RvPZC-Zo1ab_YlAqB3qngwwKRE5eMAsYxti0HE-zDUncAMwG2DnVo\
     TVsHzuicijlYIeNn3DgTBq8KFpmTob8twryRjT_W4n4jyvCNMRV9AFdNYnVDoUUltQLwW_4i5PQRsP9cAUEzIdWVld\
     lwzHRDxs5ri81_fplbs\",\"dp\":\"Xjy91mgQ0Uy3efnAjqrQvegv5b-DNA_LGFVobOrkUJxLgPmnQBNPg9glowi\
     rMeTrwsCY4LzzBcpkwfKsaiBaTlJP5G91sbJA3BIh1_cKg35clnz36w8v7RrMD_GSS_eloSJDTPLc2QB7UZ2lRVJKQ\
     hIOOZb4xIIKO30dPIOjbWU\",\"dq\":\"W0srB3kFG8pG7PtoTiW97hwBoOx37aNvqf284KW3c75cavApb_JZJ3sV\
     eTjVWtheIuVLWqwxkvsz_ZQx6ES5nc_gxBe7Rdh1cCE9M3ieN0qBz4VrnQQ2XHAj-ENcsROKgOymSUQCRxAODAyQLa\
     FchIc1FgYt2fLXlDmKoV2IxF8\",\"qi\":\"gC3jjfoKhvXYVveprGrnIng_iWGTzsR3GcXHf5tUNUvB91BhBxPJg\
     DDjhId7-gT-_2c44gy_1nginf5ROVdINmzy-Gk3zzz4sx20pu7WA1kb6gGYjYFp1UONHjQna2Tj27uOwMjgEqtp-Ak\
     v9T5eVSH-ey2Fzhv7aEyFuy68xQI\"}";
