"""Operations on a lab."""
