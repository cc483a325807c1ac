//! The published sets: where their archives are, what they weigh as their publishers state it, and
//! how many images a whole set has. The one table of addresses.
//!
//! Checksums: those on the authors' pages (CIFAR), on Zenodo (corrupted sets), in torchvision
//! (SVHN, single files of CIFAR) and in wide use (TinyImageNet, `val.npz` in DM-Improves-AT).
//! Addresses of generated sets: the README of DM-Improves-AT (EDM) and that of DeepMind's
//! adversarial_robustness (DDPM), which publish no checksums.

/// A file as it is published.
#[derive(Debug, Clone, Copy)]
pub struct Remote {
    /// Its name on disk.
    pub file: &'static str,
    /// Its official address.
    pub url: &'static str,
    /// Its MD5; `None` where nobody published one.
    pub md5: Option<&'static str>,
}

impl Remote {
    /// The file's name without the folder that it is kept in.
    pub fn name(&self) -> &'static str {
        self.file.rsplit('/').next().unwrap_or(self.file)
    }
}

/// A set.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Its name, as `--data` takes it.
    pub name: &'static str,
    /// What `gauntlet data fetch` downloads.
    pub remotes: &'static [Remote],
    /// Images of the training and the test half of the whole set.
    pub images: [u64; 2],
    /// Single files with known checksums, by the end of their path.
    pub files: &'static [(&'static str, &'static str)],
}

const fn remote(file: &'static str, url: &'static str, md5: &'static str) -> Remote {
    Remote { file, url, md5: Some(md5) }
}

const CIFAR100: Entry = Entry {
    name: "cifar100",
    remotes: &[remote(
        "cifar-100-python.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "eb9058c3a382ffc7106e4002c42a8d85",
    )],
    images: [50_000, 10_000],
    files: &[
        ("cifar-100-python/train", "16019d7e3df5f24257cddd939b257f8d"),
        ("cifar-100-python/test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
        ("cifar-100-python/meta", "7973b15100ade9c7d40fb424638fde48"),
    ],
};

const TEST_FILE: Remote = remote(
    "test_32x32.mat",
    "http://ufldl.stanford.edu/housenumbers/test_32x32.mat",
    "eb5a983be6a315427106f1b164d9cef3",
);

/// All of them.
pub const ENTRIES: [Entry; 11] = [
    Entry {
        name: "cifar10",
        remotes: &[remote(
            "cifar-10-python.tar.gz",
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "c58f30108f718f92721af3b95e74349a",
        )],
        images: [50_000, 10_000],
        files: &[
            ("cifar-10-batches-py/data_batch_1", "c99cafc152244af753f735de768cd75f"),
            ("cifar-10-batches-py/data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
            ("cifar-10-batches-py/data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
            ("cifar-10-batches-py/data_batch_4", "634d18415352ddfa80567beed471001a"),
            ("cifar-10-batches-py/data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
            ("cifar-10-batches-py/test_batch", "40351d587109b95175f43aff81a1287e"),
            ("cifar-10-batches-py/batches.meta", "5ff9c542aee3614f3951f8cda6e48888"),
        ],
    },
    Entry {
        name: "cifar10-binary",
        remotes: &[remote(
            "cifar-10-binary.tar.gz",
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "c32a1d4ab5d03f1284b67883e8d87530",
        )],
        images: [50_000, 10_000],
        files: &[],
    },
    CIFAR100,
    Entry { name: "cifar100-coarse", files: &[], ..CIFAR100 },
    Entry {
        name: "cifar100-binary",
        remotes: &[remote(
            "cifar-100-binary.tar.gz",
            "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            "03b5dce01913d631647c71ecec9e9cb8",
        )],
        images: [50_000, 10_000],
        files: &[],
    },
    Entry {
        name: "svhn",
        remotes: &[
            remote(
                "train_32x32.mat",
                "http://ufldl.stanford.edu/housenumbers/train_32x32.mat",
                "e26dedcc434d2e4c54c9b2d4a06d8373",
            ),
            TEST_FILE,
        ],
        images: [73_257, 26_032],
        files: &[],
    },
    Entry {
        name: "svhn-extra",
        remotes: &[
            remote(
                "extra_32x32.mat",
                "http://ufldl.stanford.edu/housenumbers/extra_32x32.mat",
                "a93ce644f1a588dc4d68dda5feec44a7",
            ),
            TEST_FILE,
        ],
        images: [531_131, 26_032],
        files: &[],
    },
    Entry {
        name: "tiny-imagenet",
        remotes: &[remote(
            "tiny-imagenet-200.zip",
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            "90528d7ca1a48142e341f4ef8d21d0de",
        )],
        images: [100_000, 10_000],
        files: &[
            ("tiny-imagenet-200/train.npz", "db414016436353892fdf00cb30b9ee57"),
            ("tiny-imagenet-200/val.npz", "7762694b6217fec8ba1a7be3c20ef218"),
        ],
    },
    Entry {
        name: "cifar10.1",
        remotes: &[
            Remote {
                file: "cifar10.1_v6_data.npy",
                url: "https://raw.githubusercontent.com/modestyachts/CIFAR-10.1/master/datasets/cifar10.1_v6_data.npy",
                md5: None,
            },
            Remote {
                file: "cifar10.1_v6_labels.npy",
                url: "https://raw.githubusercontent.com/modestyachts/CIFAR-10.1/master/datasets/cifar10.1_v6_labels.npy",
                md5: None,
            },
        ],
        images: [0, 2000],
        files: &[],
    },
    Entry {
        name: "cifar10-c",
        remotes: &[remote(
            "CIFAR-10-C.tar",
            "https://zenodo.org/records/2535967/files/CIFAR-10-C.tar?download=1",
            "56bf5dcef84df0e2308c6dcbcbbd8499",
        )],
        images: [0, 10_000],
        files: &[],
    },
    Entry {
        name: "cifar100-c",
        remotes: &[remote(
            "CIFAR-100-C.tar",
            "https://zenodo.org/records/3555552/files/CIFAR-100-C.tar?download=1",
            "11f0ed0f1191edbf9fa23466ae6021d3",
        )],
        images: [0, 10_000],
        files: &[],
    },
];

/// A generated set: its name, images, folder here, address of its folder there, and files.
macro_rules! generated {
    ($name:literal, $images:literal, $folder:literal, $url:literal, $($file:literal)*) => {
        Entry {
            name: $name,
            remotes: &[$(Remote {
                file: concat!($folder, "/", $file),
                url: concat!($url, $file),
                md5: None,
            }),*],
            images: [$images, 0],
            files: &[],
        }
    };
}

/// The published generated sets: of this paper, and the DDPM images of Gowal et al. 2021. Sets of
/// many parts have a folder of their own, which names the set as a whole.
#[rustfmt::skip]
pub const GENERATED: [Entry; 13] = [
    generated!("cifar10-edm-1m", 1_000_000, "edm_data/cifar10",
        "https://huggingface.co/datasets/P2333/DM-Improves-AT/resolve/main/cifar10/", "1m.npz"),
    generated!("cifar10-edm-5m", 5_000_000, "edm_data/cifar10",
        "https://huggingface.co/datasets/P2333/DM-Improves-AT/resolve/main/cifar10/", "5m.npz"),
    generated!("cifar10-edm-10m", 10_000_000, "edm_data/cifar10",
        "https://huggingface.co/datasets/P2333/DM-Improves-AT/resolve/main/cifar10/", "10m.npz"),
    generated!("cifar10-edm-20m", 20_000_000, "edm_data/cifar10/20m",
        "https://huggingface.co/datasets/P2333/DM-Improves-AT/resolve/main/cifar10/",
        "20m_part1.npz" "20m_part2.npz"),
    generated!("cifar10-edm-50m", 50_000_000, "edm_data/cifar10/50m",
        "https://huggingface.co/datasets/P2333/DM-Improves-AT/resolve/main/cifar10/",
        "50m_part1.npz" "50m_part2.npz" "50m_part3.npz" "50m_part4.npz"),
    generated!("cifar100-edm-1m", 1_000_000, "edm_data/cifar100",
        "https://huggingface.co/datasets/P2333/DM-Improves-AT/resolve/main/cifar100/", "1m.npz"),
    generated!("cifar100-edm-50m", 50_000_000, "edm_data/cifar100/50m",
        "https://huggingface.co/datasets/P2333/DM-Improves-AT/resolve/main/cifar100/",
        "50m_part1.npz" "50m_part2.npz" "50m_part3.npz" "50m_part4.npz"),
    generated!("svhn-edm-1m", 1_000_000, "edm_data/svhn",
        "https://huggingface.co/wzekai99/DM-Improves-AT/resolve/main/edm_data/svhn/",
        "svhn_1m.npz"),
    generated!("svhn-edm-50m", 50_000_000, "edm_data/svhn/50m",
        "https://huggingface.co/wzekai99/DM-Improves-AT/resolve/main/edm_data/svhn/",
        "svhn_50m_part1.npz" "svhn_50m_part2.npz" "svhn_50m_part3.npz" "svhn_50m_part4.npz"
        "svhn_50m_part5.npz"),
    generated!("tiny-imagenet-edm-1m", 1_000_000, "edm_data/tiny",
        "https://huggingface.co/wzekai99/DM-Improves-AT/resolve/main/edm_data/tiny/",
        "tiny_edm_1m.npz"),
    generated!("cifar10-ddpm", 1_000_000, "ddpm_data",
        "https://storage.googleapis.com/dm-adversarial-robustness/", "cifar10_ddpm.npz"),
    generated!("cifar100-ddpm", 1_000_000, "ddpm_data",
        "https://storage.googleapis.com/dm-adversarial-robustness/", "cifar100_ddpm.npz"),
    generated!("svhn-ddpm", 1_000_000, "ddpm_data",
        "https://storage.googleapis.com/dm-adversarial-robustness/", "svhn_ddpm.npz"),
];

/// The set called `name`.
pub fn entry(name: &str) -> Option<&'static Entry> {
    ENTRIES.iter().chain(&GENERATED).find(|entry| entry.name == name)
}
