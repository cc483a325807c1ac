//! leaderboard.
