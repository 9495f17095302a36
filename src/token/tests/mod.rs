mod renewal;
